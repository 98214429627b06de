"""The ground: errors of one sentence, sealed directories, numbers; neither EEG nor images."""
