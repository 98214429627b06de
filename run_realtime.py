"""The live system: `python run_realtime.py` runs the demo, `--help` tells what else there is."""

from stream.commands.app import main

if __name__ == "__main__":
    main()
