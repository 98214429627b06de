"""The commands of run_realtime.py, one small file each."""
