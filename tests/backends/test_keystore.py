"""The keystore (threats.md, keys): no key leaves the machine or reaches a log."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json

from learnae.backends.ethereum import WalletKey
from learnae.backends.keystore import IdentityKey, Keys, create_keystore, describe_keystore, open_keystore
from learnae.backends.private_files import read_password
from learnae.errors import KeystoreError

PASSWORD = "correct horse"
FAST = 1 << 10
CANARY_SEED = bytes(range(100, 132))
CANARY_SECRET = bytes(range(32))[::-1]


def make_store(folder: Path) -> Path:
    path = folder / "keys.json"
    create_keystore(path, PASSWORD, keys=Keys(IdentityKey(CANARY_SEED), WalletKey(CANARY_SECRET)), scrypt_n=FAST)
    return path


def test_keystore__gives_back_the_same_keys(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    keys = open_keystore(path, PASSWORD)
    assert keys.identity.export_seed() == CANARY_SEED and keys.wallet.export_secret() == CANARY_SECRET
    assert describe_keystore(path)["wallet_address"] == keys.wallet.address
    assert keys.identity.sign(b"x") == IdentityKey(CANARY_SEED).sign(b"x")


def test_keystore__new_keys_differ(tmp_path: Path) -> None:
    first = create_keystore(tmp_path / "a" / "keys.json", PASSWORD, scrypt_n=FAST)
    second = create_keystore(tmp_path / "b" / "keys.json", PASSWORD, scrypt_n=FAST)
    assert first.identity.peer_id != second.identity.peer_id and first.wallet.address != second.wallet.address


def test_keystore__is_readable_by_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = make_store(tmp_path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["keys.json"]


def test_keystore__wrong_password_is_one_clear_sentence(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    with pytest.raises(KeystoreError, match=r"cannot be used: the password is wrong \(or the file was changed\)$"):
        open_keystore(path, "wrong horse")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_keystore__readable_by_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = make_store(tmp_path)
    path.chmod(mode)
    with pytest.raises(KeystoreError, match=r"others may read it .*chmod 600"):
        open_keystore(path, PASSWORD)


def test_keystore__never_overwrites(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    before = path.read_bytes()
    with pytest.raises(KeystoreError, match="exists already"):
        create_keystore(path, PASSWORD, scrypt_n=FAST)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_keystore__short_password_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="has 7 characters and at least 8"):
        create_keystore(tmp_path / "keys.json", "1234567")
    assert not list(tmp_path.iterdir())


def test_keystore__missing_or_unwritable_is_said(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="cannot be read: No such file"):
        open_keystore(tmp_path / "none.json", PASSWORD)
    (tmp_path / "file").touch()
    with pytest.raises(KeystoreError, match="cannot be written"):
        create_keystore(tmp_path / "file" / "keys.json", PASSWORD, scrypt_n=FAST)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"{", b"\xff", b'{"identity": 3}', b'{"identity": {"n": "x"}}', b"[" * 9000])
def test_keystore__damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    path.chmod(0o600)
    for read in (lambda: open_keystore(path, PASSWORD), lambda: describe_keystore(path)):
        with pytest.raises(KeystoreError, match="damaged or no keystore"):
            read()


@pytest.mark.parametrize(("part", "value"), [("identity", 1 << 40), ("identity", 3), ("wallet", 1 << 40), ("wallet", 0)])
def test_keystore__absurd_cost_is_refused_before_memory_is_taken(tmp_path: Path, part: str, value: int) -> None:
    path = make_store(tmp_path)
    fields = json.loads(path.read_bytes())
    (fields["identity"] if part == "identity" else fields["wallet"]["crypto"]["kdfparams"])["n"] = value
    path.write_text(json.dumps(fields))
    with pytest.raises(KeystoreError, match="asks for scrypt"):
        open_keystore(path, PASSWORD)


def test_keystore__swapped_halves_are_noticed(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    other = tmp_path / "other.json"
    create_keystore(other, PASSWORD, scrypt_n=FAST)
    fields = json.loads(path.read_bytes())
    fields["wallet"] = json.loads(other.read_bytes())["wallet"]
    path.write_text(json.dumps(fields))
    with pytest.raises(KeystoreError, match="names other keys than it holds"):
        open_keystore(path, PASSWORD)


def test_keystore__wallet_part_is_an_ethereum_keyfile(tmp_path: Path) -> None:
    fields = json.loads(make_store(tmp_path).read_bytes())
    assert bytes(decode_keyfile_json(fields["wallet"], PASSWORD.encode())) == CANARY_SECRET


def test_wallet__opens_keyfiles_of_other_programs_and_no_damaged_ones() -> None:
    keyfile = create_keyfile_json(CANARY_SECRET, PASSWORD.encode(), kdf="scrypt", iterations=FAST)
    assert WalletKey.unseal(keyfile, PASSWORD).export_secret() == CANARY_SECRET

    for name, value in (("mac", "00" * 32), ("ciphertext", "00" * 32), ("cipher", "aes-256-ctr"), ("kdf", "pbkdf2")):
        changed = {**keyfile, "crypto": {**keyfile["crypto"], name: value}}
        with pytest.raises(ValueError, match=r"the password is wrong|sealed in another way"):
            WalletKey.unseal(changed, PASSWORD)


def test_wallet__signs_texts_as_wallet_programs_do() -> None:
    """EIP-191, letter by letter what eth-account makes."""
    expected = Account.sign_message(encode_defunct(text="Grüße, 1 ether"), CANARY_SECRET).signature
    assert WalletKey(CANARY_SECRET).sign_text("Grüße, 1 ether") == bytes(expected)


def test_keystore__opens_without_the_library_that_takes_longest_to_load(tmp_path: Path) -> None:
    """A node starts again within seconds: the arithmetic under eth-account takes a third of a start, and no start needs it."""
    path = make_store(tmp_path)
    program = (
        "import sys\nfrom pathlib import Path\nimport learnae.backends.ethereum\nfrom learnae.backends.keystore import open_keystore\n"
        f"open_keystore(Path({str(path)!r}), {PASSWORD!r}); print({{'eth_account', 'py_ecc'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n", done.stderr


def test_keys__never_show_their_secret(tmp_path: Path) -> None:
    """Canary keys: not in the file, not in repr, str, format or a traceback."""
    path = make_store(tmp_path)
    keys = open_keystore(path, PASSWORD)
    shown = path.read_text() + f"{keys!r} {keys} {keys.wallet} {keys.identity} {vars} {keys.wallet!r:>80}"
    for secret in (CANARY_SEED, CANARY_SECRET):
        assert secret.hex() not in shown and repr(secret) not in shown and str(int.from_bytes(secret, "big")) not in shown
    for key in (keys.identity, keys.wallet):
        with pytest.raises(TypeError, match="not copied out of its process"):
            copy.deepcopy(key)


def test_keys__crash_prints_no_secret(tmp_path: Path) -> None:
    path = make_store(tmp_path)
    program = (
        "import sys; from pathlib import Path\nfrom learnae.backends.keystore import *\n"
        "keys = open_keystore(Path(sys.argv[1]), sys.stdin.read())\nprint(keys, vars())\nraise RuntimeError(keys)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], input=PASSWORD, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "RuntimeError" in done.stderr and "WalletKey(0x" in done.stdout
    for secret in (CANARY_SEED, CANARY_SECRET, PASSWORD.encode()):
        for form in (secret.hex(), repr(secret)[2:-1]):
            assert form not in done.stdout + done.stderr


def test_password__comes_from_a_private_file_or_a_prompt(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o600)
    assert read_password(file) == PASSWORD
    file.chmod(0o644)
    with pytest.raises(KeystoreError, match="others may read it"):
        read_password(file)
    answers = iter([PASSWORD, PASSWORD, PASSWORD, "other"])
    assert read_password(None, confirm=True, ask=lambda prompt: next(answers)) == PASSWORD
    with pytest.raises(KeystoreError, match="the two passwords differ"):
        read_password(None, confirm=True, ask=lambda prompt: next(answers))

    def no_terminal(prompt: str) -> str:
        raise EOFError

    with pytest.raises(KeystoreError, match="give --password-file"):
        read_password(None, ask=no_terminal)
