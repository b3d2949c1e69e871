"""`learnae sensor admit` and `sensors.toml`: how a member lets a sensor in, and what its node follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from learnae.backends.sensor_folder import SensorFolder, parse_admission_text
from learnae.backends.sensor_settings import format_opening, parse_opening, read_sensor_settings, write_sensor_settings
from learnae.cli import main
from learnae.cli.folder import NodeFolder
from learnae.errors import FolderError
from learnae.ids import peer_text
from learnae.tangle.channel import Opening
from tests.cli.conftest import World


def test_admission__of_a_member_is_taken_by_the_sensor_it_names(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = world.root / "founder"
    sensor = SensorFolder(tmp_path / "sensor")
    arguments = ["sensor", "admit", str(folder), peer_text(sensor.issuer.peer), "--password-file", str(world.password_file)]
    assert main([*arguments, "--rate", "20", "--channels", "3"]) == 0
    text = capsys.readouterr().out
    sensor.write_admission(text)

    admission, hello = parse_admission_text(text)
    rules = NodeFolder(folder).read_ticket().rules
    assert (admission.rate_per_s, admission.channels_max) == (20, 3)
    assert (hello.net, hello.codename, hello.slice_bytes) == (rules.compute_net("sensors"), rules.codename, rules.slice_bytes)
    assert admission.admits(sensor.issuer.peer, hello.net)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["nobody"], "is not the id of a sensor"),
        (["{id}", "--rate", "0"], "--rate is 1 to 1000"),
        (["{id}", "--channels", "9999"], "--channels 1 to 1024"),
    ],
)
def test_admission__says_what_is_wrong(
    more: list[str], why: str, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(id=peer_text(SensorFolder(tmp_path / "sensor").issuer.peer)) for word in more]
    assert main(["sensor", "admit", str(world.root / "founder"), *words, "--password-file", str(world.password_file)]) == 2
    assert why in capsys.readouterr().err


def test_settings__are_read_back(tmp_path: Path) -> None:
    assert read_sensor_settings(tmp_path) is None
    write_sensor_settings(tmp_path, codename="garden", listen="127.0.0.1:4480", only_streams=True)
    settings = read_sensor_settings(tmp_path)
    assert settings is not None
    assert (settings.codename, settings.listen, settings.only_streams) == ("garden", "127.0.0.1:4480", True)
    opening = Opening(17, bytes(range(32)))
    assert parse_opening(format_opening(opening)) == opening
    keys = f'side_keys = ["{"ab" * 32}"]\n[sensors.openings]\n"s" = "{format_opening(opening)}"\n'
    (tmp_path / "sensors.toml").write_text("[sensors]\n" + keys)
    settings = read_sensor_settings(tmp_path)
    assert settings is not None and settings.openings == {"s": opening} and settings.side_keys == (bytes.fromhex("ab" * 32),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[sensors", "Expected"),
        ("[other]", r"expected one table \[sensors\]"),
        ("[sensors]\ncolour = 1", "unknown name 'colour'"),
        ("[sensors]\ncodename = 1", "codename is 1, expected str"),
        ('[sensors]\nlisten = "here"', "listen is 'here', expected HOST:PORT"),
        ('[sensors]\nside_keys = ["ab"]', "keys of 64 hex digits"),
        ('[sensors.openings]\ns = "1:ab"', "is not an opening"),
    ],
)
def test_settings__that_are_wrong_are_told(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "sensors.toml").write_text(text)
    with pytest.raises(FolderError, match=f"its sensors.toml cannot be used: .*{why}"):
        read_sensor_settings(tmp_path)
