"""What was cut of each recording, kept until the trial set is whole: a killed `prepare` goes on."""
