"""The ground: errors of one sentence, sealed directories, numbers; neither EEG nor images."""

import signal


def ctrl_c_ends_it() -> None:
    """Has Ctrl-C end the program without a word, until `one_sentence` can say one.

    It comes before all other imports, each of which would end in a traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
