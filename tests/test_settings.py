"""Settings: declared once, merged from layers, refused in a sentence, changed while they live."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, ClassVar, Literal

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from hvf_core.options import Asked, as_arguments, run_app, with_settings
from hvf_core.problem import Problem, WrongUsage, one_sentence
from hvf_core.settings import (
    Given,
    Settings,
    from_assignments,
    live_settings,
    merge,
    setting,
    settings_of,
    with_value,
)
from hvf_core.toml import read_toml, to_toml
from stream.acquire.settings import AdaptationSettings
from stream.pipeline.wire.config import SessionConfig, SessionSettings
from stream.sources.settings import ReplaySettings
from tests.calling import call, signals_as_before


class Brush(Settings):
    """What paints."""

    prior: Path = setting(option="--paint")
    """Folder of the prior."""
    scale: float = setting(1.0, option="--scale", live=True, ge=0)
    """Influence of the brain. At 0 there is none."""
    size_px: int | None = setting(None, option="--paint-size", multiple_of=8)
    """Of the picture."""
    preview: Literal["none", "full"] | None = setting(None, live=True)
    """What shows the picture while it comes."""


class Rest(Settings):
    """How a session is adapted."""

    trials: float = 20.0
    """That the training counts as."""


class Decoding(Settings):
    """How trials are answered."""

    tmax_s: tuple[float, ...] = setting((), option="--tmax")
    """Ends of windows."""
    floor: float = setting(0.0, option="--floor", live=True, ge=0, le=1)
    """Answers below abstain."""
    adaptation: Rest | None = setting(None, option="--adapt")
    """Follow the session."""


class Tree(Settings):
    """A session."""

    version: ClassVar[int] = 2
    renamed: ClassVar[Mapping[str, str]] = {"brush.weight": "brush.scale"}

    name: str | None = None
    """Of the session."""
    channels: dict[str, str] = setting({}, option="--channels")
    """Names of the stream's to the bundle's."""
    record: bool = setting(True, option="--no-record")
    """Keep the samples."""
    decoding: Decoding = Decoding()
    """How trials are answered."""
    brush: Brush | None = None
    """What paints; nothing does without."""


def toml(folder: Path, text: str) -> Path:
    path = folder / "session.toml"
    path.write_text(text, encoding="utf-8")
    return path


def command_line(
    *arguments: str, defaults: Mapping[str, Any] | None = None, without: tuple[str, ...] = ()
) -> Tree:
    """What a command gets that was called so."""
    got: list[Tree] = []
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    @with_settings(Tree, without=without)
    def paint(asked: Asked[Tree], times: Annotated[int, typer.Option()] = 1) -> None:
        got.append(asked.settings(defaults))

    app(list(arguments), standalone_mode=False)
    return got[0]


def test_a_command_line_gives_the_settings_and_nothing_else() -> None:
    assert command_line() == Tree()
    settings = command_line("--tmax", "0.3,0.5", "--adapt", "--channels", "A=B,C=D", "--no-record")
    assert settings == Tree(
        decoding=Decoding(tmax_s=(0.3, 0.5), adaptation=Rest()),
        channels={"A": "B", "C": "D"},
        record=False,
    )


def test_a_section_that_is_off_goes_on_with_its_first_setting_and_off_with_none() -> None:
    assert command_line("--paint", "p", "--paint-size", "64").brush == Brush(
        prior=Path("p"), size_px=64
    )
    assert command_line("--paint", "p", "--set", "brush=none").brush == Brush(prior=Path("p"))
    assert command_line("--set", "brush=none", defaults={"brush.prior": "p"}).brush is None
    assert command_line("--set", 'brush={prior="p"}').brush == Brush(prior=Path("p"))


def test_layers_defaults_then_file_then_set_then_options(tmp_path: Path) -> None:
    path = str(toml(tmp_path, 'name = "f"\n[decoding]\ntmax_s = [0.1]\nfloor = 0.2\n'))
    defaults = {"name": "d", "decoding.floor": 0.1, "brush.prior": "p"}
    settings = command_line("--config", path, defaults=defaults)
    assert settings == Tree(
        name="f", decoding=Decoding(tmax_s=(0.1,), floor=0.2), brush=Brush(prior=Path("p"))
    )
    sets = ("--set", "decoding.floor=0.3", "--set", "name=5")
    settings = command_line("--config", path, *sets, "--floor", "0.4")
    assert settings == Tree(name="5", decoding=Decoding(tmax_s=(0.1,), floor=0.4))


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["a", "b", None]),
    "channels": st.dictionaries(st.sampled_from("AB"), st.sampled_from("CD")),
    "record": st.booleans(),
    "decoding.floor": st.sampled_from([0.1, 0.2]),
    "decoding.adaptation": st.sampled_from([None, {}]),
    "decoding.adaptation.trials": st.sampled_from([1.0, 2.0]),
    "brush": st.none(),
    "brush.scale": st.sampled_from([1.0, 2.0]),
    "brush.prior": st.sampled_from([Path("p"), Path("q")]),
}


def of_one_mind(layer: dict[str, Any]) -> dict[str, Any]:
    """A layer in order of its paths, without settings of a section that it switches off."""
    off = tuple(f"{path}." for path, value in layer.items() if value is None)
    return {path: layer[path] for path in sorted(layer) if not path.startswith(off)}


layers = st.lists(st.fixed_dictionaries({}, optional=VALUES).map(of_one_mind), max_size=5)


def slowly(values: list[dict[str, Any]]) -> dict[str, Any]:
    """Nested tables, one over another: what is no table replaces, and tables are put together."""

    def nest(layer: dict[str, Any]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for path, value in layer.items():
            *parents, name = path.split(".")
            at = table
            for parent in parents:
                if at.get(parent) is None:
                    at[parent] = {}
                at = at[parent]
            at[name] = value if value != {} or path == "channels" else at.get(name) or {}
        return table

    def over(low: Any, high: Any, path: tuple[str, ...] = ()) -> Any:
        if not isinstance(low, dict) or not isinstance(high, dict) or path == ("channels",):
            return high
        names = {**low, **high}
        return {
            name: over(low[name], high[name], (*path, name))
            if name in low and name in high
            else names[name]
            for name in names
        }

    table: dict[str, Any] = {}
    for layer in values:
        table = over(table, nest(layer))
    return table


@given(layers)
def test_layers_merge_as_tables_one_over_another(values: list[dict[str, Any]]) -> None:
    told = [{path: Given(value, path) for path, value in layer.items()} for layer in values]
    expected = slowly(values)
    if expected.get("brush") is not None and "prior" not in expected["brush"]:
        with pytest.raises(WrongUsage, match=r"--paint \(or brush.prior\) is missing"):
            merge(Tree, *told)
    else:
        assert merge(Tree, *told) == Tree.model_validate(expected)


@given(layers)
def test_what_is_written_as_toml_is_read_as_the_same(values: list[dict[str, Any]]) -> None:
    told = [{path: Given(value, path) for path, value in layer.items()} for layer in values]
    try:
        settings = merge(Tree, *told)
    except WrongUsage:
        return
    with TemporaryDirectory() as folder:
        assert merge(Tree, read_toml(Tree, toml(Path(folder), to_toml(settings)))) == settings


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--paint-size 100 --paint p", "--paint-size 100 is no multiple of 8"),
        ("--floor 2", "--floor 2 must be less than or equal to 1"),
        ("--set decoding.floor=2", "--set decoding.floor 2 must be less than or equal to 1"),
        ("--tmax abc", "--tmax 'abc' must be a valid number"),
        ("--tmax 0.3,nan", "--tmax 'nan' must be a finite number"),
        ("--channels foo", "--channels 'foo' is no list such as EEG1=Pz,EEG2=Oz"),
        ("--set brush.preview=huge --paint p", "--set brush.preview 'huge' must be 'none' or"),
        ("--set brush=3", "brush (--set) is 3, and must be a table of settings"),
        ("--set decoding.flour=1", "no setting 'decoding.flour' (--set); did you mean 'decoding.f"),
        ("--set tmax=1", "no setting 'tmax' (--set); did you mean 'decoding.tmax_s'?"),
        ("--set bogus.path=1", "no setting 'bogus.path' (--set); there are "),
        ("--set record", "--set 'record' has no value; write --set record=VALUE"),
        ("--set zzz=1", "no setting 'zzz' (--set); there are name, channels, record, decoding, b"),
        ("--paint-size 8", "--paint (or brush.prior) is missing: Folder of the prior"),
    ],
)
def test_what_is_wrong_on_a_command_line_is_wrong_usage(arguments: str, said: str) -> None:
    with pytest.raises(WrongUsage) as caught:
        command_line(*arguments.split())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("evidence = mean", "are no TOML: Invalid value (at line 1, column 12)"),
        ("[decoding]\nfloor = 2", "'{}': decoding.floor 2 must be less than or equal to 1"),
        ("decoding = 3", "decoding in '{}' is 3, and must be a table of settings"),
        ("[decoding]\nflor = 0", "no setting 'decoding.flor' in '{}'; did you mean 'decoding.fl"),
        ("[decoding]\nrecord = true", "'decoding.record' in '{}'; did you mean 'record'?"),
        ("[decodign]\nfloor = 0", "no setting 'decodign' in '{}'; did you mean 'decoding'?"),
        ("version = 3", "of version 3, and this program knows those up to 2: bring it up to date"),
        ('version = "new"', "of version 'new', and this program knows those up to 2"),
        ("version = 1\n[brush]\nweight = 1", "'brush.weight' in '{}' is called 'brush.scale' now"),
        ("name = 5", "'{}': name 5 must be a valid string"),
        pytest.param("name = " + "[" * 9999, "are no TOML: maximum recursion", id="brackets"),
        pytest.param('name = ["' + "x" * 9999 + '"]', "x… must be a valid string", id="giant"),
        ('"a\\nb" = 1', "no setting 'a\\nb' in '{}'"),
        ("decoding.floor = true", "decoding.floor: must be a number, not true"),
    ],
)
def test_what_is_wrong_in_a_file_names_the_file_and_the_key(
    tmp_path: Path, text: str, said: str
) -> None:
    path = toml(tmp_path, text)
    with pytest.raises(WrongUsage) as caught:
        command_line("--config", str(path))
    assert said.format(path) in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_a_file_may_begin_with_the_mark_that_some_editors_write(tmp_path: Path) -> None:
    path = tmp_path / "session.toml"
    path.write_bytes(b"\xef\xbb\xbf" + 'name = "é"\n'.encode())
    assert read_toml(Tree, path)["name"].value == "é"


def test_any_character_is_written_so_that_it_is_read_again(tmp_path: Path) -> None:
    name = "".join(map(chr, range(0x100))) + "😀"
    settings = merge(Tree, {"name": Given(name, "name")})
    assert merge(Tree, read_toml(Tree, toml(tmp_path, to_toml(settings)))) == settings


def test_a_file_of_an_older_version_whose_names_all_live_is_read(tmp_path: Path) -> None:
    path = toml(tmp_path, "version = 1\nrecord = false")
    assert command_line("--config", str(path)) == Tree(record=False)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(Problem, match=r"'no.toml' cannot be read \(No such file"):
        command_line("--config", "no.toml")


def test_only_what_is_live_changes_and_only_to_what_is_allowed() -> None:
    settings = Tree(brush=Brush(prior=Path("p")))
    assert with_value(settings, "brush.scale", "0.5").brush.scale == 0.5
    assert with_value(settings, "brush.preview", "none").brush.preview == "none"
    assert with_value(settings, "decoding.floor", "0.25").decoding == Decoding(floor=0.25)
    for path, value, said in (
        ("brush.scale", "-1", "brush.scale -1 must be greater than or equal to 0"),
        ("brush.scale", "much", "brush.scale 'much' must be a valid number"),
        ("brush.prior", "q", "brush.prior cannot change during a session; these can: decoding"),
        ("brush.skale", "1", "there is no setting 'brush.skale'; did you mean 'brush.scale'?"),
    ):
        with pytest.raises(Problem) as caught:
            with_value(settings, path, value)
        assert said in str(caught.value)
    with pytest.raises(Problem, match=r"brush.scale cannot be set: .* without brush"):
        with_value(Tree(), "brush.scale", "1")
    assert list(live_settings(Tree)) == ["decoding.floor", "brush.scale", "brush.preview"]


def test_the_schema_tells_all_that_a_form_needs() -> None:
    schema = Tree.model_json_schema()["$defs"]
    size = schema["Brush"]["properties"]["size_px"]
    assert (size["unit"], size["option"]) == ("pixels", "--paint-size")
    scale = schema["Brush"]["properties"]["scale"]
    assert (scale["live"], scale["minimum"], scale["default"]) == (True, 0, 1.0)
    assert scale["description"] == "Influence of the brain. At 0 there is none."
    assert schema["Decoding"]["properties"]["tmax_s"]["unit"] == "s"
    assert settings_of(Tree)["brush.scale"].help == "Influence of the brain"


def test_help_shows_the_options_asked_for_and_the_defaults_of_the_tree(capsys) -> None:
    with pytest.raises(IndexError):  # as the command does not run
        command_line("--help", without=("brush.size_px", "decoding"))
    shown = capsys.readouterr().out
    for word in ("--scale", "1.0 by", "--channels", "A=B,C=D", "--config", "--set"):
        assert word in shown
    for word in ("--paint-size", "--tmax", "--adapt"):
        assert word not in shown
    (flag,) = [line for line in shown.splitlines() if "--no-record" in line]
    assert "bool" not in flag


def test_a_mistake_ends_with_the_status_of_its_kind(capsys) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fail(usage: bool = False) -> None:
        raise (WrongUsage if usage else Problem)("this is wrong")

    for arguments, status in (([], 1), (["--usage"], 2)):
        with signals_as_before(), pytest.raises(SystemExit) as ended, one_sentence():
            run_app(app, "x", arguments)
        assert ended.value.code == status
        assert capsys.readouterr().err == "this is wrong\n"


def test_settings_need_neither_torch_nor_typer() -> None:
    program = "import sys, hvf_core.toml; print({'torch', 'typer', 'click'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_from_assignments_reads_toml_else_text() -> None:
    texts = ["name=true story", "record=false", "decoding.tmax_s=[0.1, 0.2]", "channels=A=B, C=D"]
    found = {path: one.value for path, one in from_assignments(Tree, texts).items()}
    assert found == {
        "name": "true story",
        "record": False,
        "decoding.tmax_s": [0.1, 0.2],
        "channels": {"A": "B", "C": "D"},
    }
    assert json.dumps(found)


def test_what_is_said_twice_counts_where_it_is_said_last() -> None:
    prior = "brush.prior=p"
    off = from_assignments(Tree, [prior, "brush=none", "brush.preview=full"])
    with pytest.raises(WrongUsage, match="missing"):
        merge(Tree, off)
    assert merge(Tree, from_assignments(Tree, [prior, "brush=none"])).brush is None
    again = merge(Tree, from_assignments(Tree, [prior, "brush=none", prior])).brush
    assert again is not None


@pytest.mark.parametrize("module", ["stream.pipeline.wire.config", "stream.commands.app"])
def test_the_tree_of_a_session_is_read_where_nothing_heavy_is_loaded(module: str) -> None:
    heavy = "{'torch', 'mne', 'diffusers', 'scipy', 'zmq', 'pylsl'}"
    program = f"import sys, {module}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_every_setting_of_a_session_says_what_it_is() -> None:
    for path, one in settings_of(SessionSettings).items():
        assert one.help or one.choices, f"{path} has no help"


def test_what_may_change_during_a_session() -> None:
    live = set(live_settings(SessionConfig))
    assert live >= {"decoding.min_confidence", "top_k", "painting.ip_scale", "painting.preview"}
    assert live >= {"reject.peak_to_peak_uv", "reject.flat_uv", "painting.steps"}
    assert not live & {"bundle", "decoding.tmax_s", "decoding.engine", "marker_rule.stimulus"}


def test_settings_that_no_option_has_are_reached_by_set() -> None:
    texts = [
        "marker_rule.column=1",
        "trigger.channel=STI",
        "trigger.shortest_samples=3",
        "trials.history_s=60",
        "trials.max_unanswered=8",
        "record=false",
    ]
    settings = merge(SessionSettings, from_assignments(SessionSettings, texts))
    assert settings.marker_rule.column == 1
    assert (settings.trigger.channel, settings.trigger.shortest_samples) == ("STI", 3)
    assert (settings.trials.history_s, settings.trials.max_unanswered) == (60, 8)
    assert settings.record is False


def test_a_resting_recording_adapts_the_session() -> None:
    texts = ["decoding.rest=rest.fif", "bundle=b"]
    settings = merge(SessionSettings, from_assignments(SessionSettings, texts))
    assert settings.decoding.adaptation == AdaptationSettings()
    assert settings.decoding.rest == Path("rest.fif").absolute()


def test_settings_are_handed_to_another_program_as_its_options() -> None:
    replay = ReplaySettings(speed="max", start_s=2.5, marker_stream="a b")
    arguments = as_arguments(replay)
    assert arguments == ["--start=2.5", "--marker-stream=a b", "--speed=max"]


def test_config_prints_what_a_session_reads_again(tmp_path: Path) -> None:
    sets = ("--set", "top_k=3", "--set", "decoding.tmax_s=0.3", "--set", "source.eeg=EEG ü")
    printed = call("config", *sets)
    assert printed.code == 0, printed.err
    path = toml(tmp_path, printed.out)
    read = merge(SessionSettings, read_toml(SessionSettings, path))
    assert (read.top_k, read.decoding.tmax_s, read.source.eeg) == (3, (0.3,), "EEG ü")
    assert call("config", "--config", path).out == printed.out
    schema = json.loads(call("config", "--schema").out)
    assert set(schema["properties"]) == {"version", *SessionSettings.model_fields}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["liv"], "'liv' is no command; did you mean 'live'?"),
        (["live", "--set", "source.eeg=E"], "give --markers, or --trigger, or both"),
        (["--config", "none.toml"], "the settings 'none.toml' cannot be read"),
        (["live", "--channels", "A=B"], "--rename MINE=ITS"),
        (["live", "--eeg", "caf\udce9"], "'caf?' is no UTF-8"),
        (["--seed", "-1"], "--seed -1 must be greater than or equal to 0"),
        (["config", "--set", "trials.tmin_s=2"], "a trial from 2 to 1 s has no samples"),
    ],
)
def test_wrong_usage_of_the_program_is_one_sentence(arguments: list[str], said: str) -> None:
    done = call(*arguments)
    assert done.code == 2
    assert said in done.one_sentence()
