"""The demo world: `python -m demo --help`."""

from hvf_core import ctrl_c_ends_it

if __name__ == "__main__":
    ctrl_c_ends_it()
    from hvf_core.problem import one_sentence

    with one_sentence():
        from demo.commands import app
        from hvf_core.options import run_app

        run_app(app, "python -m demo")
