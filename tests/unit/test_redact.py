"""What must not leave a machine is gone from every text, and what may stays as it is."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from framework.bundle import Machine, Redactor

MACHINE: Final = Machine(
    host_names=("web01.corp.example", "web01"),
    users=("alice",),
    homes=("/home/alice", "/srv/people/alice"),
    folders=("/srv/bench/kilonode",),
)
REDACTOR: Final = Redactor(MACHINE)

JWT: Final = (
    "eyJhbGciOiJSUzI1NiIsImtpZCI6IjVmIn0.eyJpc3MiOiJrdWJlcm5ldGVzL3NlcnZpY2VhY2NvdW50In0"
    ".c2lnbmVkX2J5LW5vYm9keQ"
)
KEY_BODY: Final = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
CERTIFICATE_BODY: Final = "MIIDdzCCAl+gAwIBAgIEAgAAuTANBgkqhkiG9w0BAQUFADBaMQswCQYDVQQGEwJJ"


def pem(what: str, body: str) -> str:
    return f"-----BEGIN {what}-----\n{body}\nMzEfYyjiWA4R4/M2bS1GB4t7NXp98C3SupI=\n-----END {what}-----"


KEY: Final = pem("RSA PRIVATE KEY", KEY_BODY)
CERTIFICATE: Final = pem("CERTIFICATE", CERTIFICATE_BODY)
LINES: Final = CERTIFICATE.replace("\n", "\\n")
ENCODED: Final = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSURkekNDQWw="

SECRETS: Final = {
    "a key in PEM": (f"loaded\n{KEY}\nfine", "loaded\n<secret>\nfine"),
    "a certificate in PEM, indented": (
        "ca: |\n  " + CERTIFICATE.replace("\n", "\n  ") + "\nnext: 1",
        "ca: |\n  <secret>\nnext: 1",
    ),
    "several in one text": (f"{KEY}\n{CERTIFICATE}\nend", "<secret>\n<secret>\nend"),
    "one whose end was cut off": (f"-----BEGIN PRIVATE KEY-----\n{KEY_BODY}\nMzEf", "<secret>"),
    "one in JSON": (f'{{"ca":"{LINES}","n":1}}', '{"ca":"<secret>","n":1}'),
    "a service account's token": (f"token is {JWT}, used", "token is <secret>, used"),
    "one after an escaped line's end": (rf'err="denied:\n{JWT}\n"', r'err="denied:\n<secret>\n"'),
    "a bearer header": ("> Authorization: Bearer s3cr3t/opaque.~+==", "> Authorization: Bearer <secret>"),
    "a basic header": ("authorization: basic YWxpY2U6aHVudGVyMjI=", "authorization: basic <secret>"),
    "a kubeconfig": (
        f"client-certificate-data: {ENCODED}\nclient-key-data: {ENCODED}\nuser: {{}}",
        "client-certificate-data: <secret>\nclient-key-data: <secret>\nuser: {}",
    ),
    "a kubeconfig in JSON": (
        f'{{"certificate-authority-data":"{ENCODED}"}}',
        '{"certificate-authority-data":"<secret>"}',
    ),
    "a certificate in base64": (f"ca {ENCODED} read", "ca <secret> read"),
    "a password in YAML": ("password: hunter22\nport: 1", "password: <secret>\nport: 1"),
    "a quoted one with all in it": (
        """db_password: "correct, horse; battery 'staple'" # no\n""",
        'db_password: "<secret>" # no\n',
    ),
    "one in JSON with quotes": (
        r'{"adminPassword": "hun\"ter22", "port": 1}',
        '{"adminPassword": "<secret>", "port": 1}',
    ),
    "one in JSON in JSON": (
        r'"{\"password\":\"hunter22\",\"port\":1}"',
        r'"{\"password\":\"<secret>\",\"port\":1}"',
    ),
    "one whose quote never ends": ('passwd="hunter22', 'passwd="<secret>'),
    "a short one of digits": ("--password=1234 --port=1", "--password=<secret> --port=1"),
    "keys and values": (
        "API_KEY=abcdef0123 client-secret='abcdef0123' x",
        "API_KEY=<secret> client-secret='<secret>' x",
    ),
    "a token that JSON's quote follows": (r'"--token=abcdef.0123\" x"', r'"--token=<secret>\" x"'),
    "a URL": (
        "https://alice:hun:ter@22@proxy.example:3128/x",
        "https://<secret>@proxy.example:3128/x",
    ),
    "a URL without a user": ("redis://:hunter22@10.0.0.1:6379", "redis://<secret>@10.0.0.1:6379"),
    "AWS": (
        "AKIAIOSFODNN7EXAMPLE aws_secret_access_key = wJalrXUtnFEMI/K7MDENG",
        "<secret> aws_secret_access_key = <secret>",
    ),
    "GitHub": (rf"x\nghp_{'a1' * 18} github_pat_{'b2' * 20}", r"x\n<secret> <secret>"),
    "Slack": ("xoxb-123456789012-abcdef,", "<secret>,"),
}

NAMES: Final = {
    "a host": ("node web01: up", "node <host>: up"),
    "with its domain": ("https://web01.corp.example:6443", "https://<host>:6443"),
    "in mixed case": ("Web01.Corp.Example WEB01", "<host> <host>"),
    "with a user": ("alice@web01:~$ id=alice_2", "<user>@<host>:~$ id=<user>_2"),
    "after an escaped line's end": (r"x\nweb01\talice", r"x\n<host>\t<user>"),
    "a home": ("/home/alice/.kube/config", "<home>/.kube/config"),
    "a home elsewhere": ("/srv/people/alice: full", "<home>: full"),
    "others' homes": ("(/home/bob) /Users/Carol/x", "(<home>) <home>/x"),
    "a home in JSON": (r'"in\n/home/bob\" is"', r'"in\n<home>\" is"'),
    "the working folder": (
        "in /srv/bench/kilonode/runs, and /srv/bench/kilonode.",
        "in <folder>/runs, and <folder>.",
    ),
}

HARMLESS: Final = (
    "token: true",
    '{"token": null, "secret": ""}',
    "automountServiceAccountToken: false",
    "serviceAccountToken:\n    expirationSeconds: 3607",
    "12 tokens: 3 secrets",
    "secretName: kubernetes-ca, tokenReview",
    "kube-proxy v1.37.2, kernel 6.1.0-28-amd64",
    "nft 1.0.6 sha256:" + "0123456789abcdef" * 4,
    "10.0.0.1:6443 -> fd00::1, ip 10.128.7.9/32",
    "real-1 is Ready, real-0 is not",
    "nft -f - < earlier/0001.nft",
    '{"argv":["nft","--json","--terse","list","table","ip","kube-proxy"]}',
    "webmaster web012 my-web01 alice2 malice alice-laptop",
    "/home is empty, /srv/bench/kilonode-old too",
    "https://kubernetes.io/docs?a=1:2 and scenarios/test_x.py::test_y[10k-1.35.0]",
    "-----BEGIN PUBLIC KEY-----",
)


class TestSecrets:
    @pytest.mark.parametrize("name", SECRETS)
    def test_are_gone_and_nothing_else(self, name: str) -> None:
        text, redacted = SECRETS[name]
        assert REDACTOR.text(text) == redacted


class TestNames:
    @pytest.mark.parametrize("name", NAMES)
    def test_are_gone_and_nothing_else(self, name: str) -> None:
        text, redacted = NAMES[name]
        assert REDACTOR.text(text) == redacted


@pytest.mark.parametrize("text", HARMLESS, ids=range(len(HARMLESS)))
def test_what_is_harmless_stays_byte_for_byte(text: str) -> None:
    assert REDACTOR.text(text) == text


PIECES: Final = (
    *(text for text, _ in (*SECRETS.values(), *NAMES.values())),
    *HARMLESS,
    *(
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE",
        "LS0tLS1CRUdJTi",
    ),
    *("eyJ", "eyJabcdefgh.", "bearer ", "basic ", "token=", "password: ", "ghp_", "AKIA", "://", ":", "@"),
    *("alice", "web01", "/home/", "/srv/bench/kilonode", "<user>", "<secret>", "<home>"),
    *('"', "'", "\\", "\\n", "\\t", "\n", " ", ".", "-", "_", "/", "=", ",", "x", "A1"),
)
texts: Final = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=8).map("".join)


class TestAnyText:
    @settings(deadline=None, max_examples=300)
    @given(texts)
    @example("/home/bob/home/carol")
    @example("alice/home/bob")
    @example("/srv/bench/kilonode.alice")
    @example("token=bob and token=ab/home/alice")
    def test_is_redacted_once_and_for_all(self, text: str) -> None:
        redacted = REDACTOR.text(text)
        assert REDACTOR.text(redacted) == redacted

    @settings(deadline=None, max_examples=300)
    @given(texts, st.sampled_from((JWT, KEY, CERTIFICATE)), texts, st.integers(0, 2))
    @example("a\n", JWT, "\nb", 1)
    @example("-----BEGIN CERTIFICATE", KEY, "", 0)
    def test_keeps_no_token_and_no_key_wherever_they_stand(
        self, before: str, planted: str, after: str, nested: int
    ) -> None:
        text = before + planted + after
        for _ in range(nested):
            text = json.dumps({"log": text})
        redacted = REDACTOR.text(text)
        telling = JWT.split(".")[1:] if planted == JWT else [KEY_BODY, CERTIFICATE_BODY]
        assert not any(part in redacted for part in telling)

    @settings(deadline=None, max_examples=100)
    @given(texts)
    def test_stays_json_in_json(self, text: str) -> None:
        content = json.dumps({"log": [text, 1, 2.5, None, True]}).encode()
        redacted = json.loads(REDACTOR.json(content))
        assert redacted == {"log": [REDACTOR.text(text), 1, 2.5, None, True]}


class TestJson:
    def test_fields_that_are_secret_by_name_lose_their_texts_only(self) -> None:
        content = {"clientSecret": "abc", "token": 5, "password": "", "nested": [{"API_KEY": "x y"}]}
        redacted = json.loads(REDACTOR.json(json.dumps(content).encode()))
        assert redacted == content | {"clientSecret": "<secret>", "nested": [{"API_KEY": "<secret>"}]}

    def test_fields_keep_their_names_on_a_host_that_is_called_so(self) -> None:
        redactor = Redactor(a_machine("kernel"))
        assert redactor.json(b'{"kernel":"on kernel"}') == b'{"kernel":"on <host>"}'

    @pytest.mark.parametrize("name", ["result.json", "evidence.json"])
    def test_what_was_really_recorded_is_harmless(self, name: str) -> None:
        content = (Path(__file__).parent / "recorded" / "run-format-1" / name).read_bytes()
        assert json.loads(REDACTOR.json(content)) == json.loads(content)


def a_machine(*host_names: str) -> Machine:
    return Machine(host_names=host_names, users=(), homes=(), folders=())


class TestThisMachine:
    @pytest.fixture
    def named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(socket, "gethostname", lambda: "Web01")
        monkeypatch.setattr(socket, "getfqdn", lambda: "web01.corp.example")
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(nodename="localhost"))
        for variable, value in (("USER", "root"), ("LOGNAME", "alice"), ("SUDO_USER", "bo")):
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("HOME", "/srv/people/alice")
        monkeypatch.chdir(tmp_path)

    @pytest.mark.usefixtures("named")
    def test_has_its_names_users_homes_and_folder(self, tmp_path: Path) -> None:
        text = f"alice@WEB01.corp.example web01 /srv/people/alice {tmp_path}/runs"
        assert Redactor(Machine.this()).text(text) == "<user>@<host> <host> <home> <folder>/runs"

    @pytest.mark.usefixtures("named")
    def test_has_no_names_that_say_nothing(self) -> None:
        text = "localhost: root and bo"
        assert Redactor(Machine.this()).text(text) == text

    def test_whose_address_nobody_resolves_has_a_name_still(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse() -> str:
            raise OSError("no resolver")

        monkeypatch.setattr(socket, "gethostname", lambda: "web01")
        monkeypatch.setattr(socket, "getfqdn", refuse)
        assert "web01" in Machine.this().host_names
