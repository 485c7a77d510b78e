"""Fresh secrets in fresh contexts: each is made here, hidden, and looked for in every encoding."""

from __future__ import annotations

import base64
import io
import string
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddp_assist.app.report.redact import Redactor, redact_stream
from ddp_assist.probes.text import clean

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


def redactor(env: dict[str, str] | None = None) -> Redactor:
    return Redactor(env or {}, "gpu-n07.hpc.example.org", "mlange", "/home/mlange")


def some(alphabet: str, least: int, most: int | None = None) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most or least)


# A password as people have them: letters and a digit, nothing that ends a word.
PASSWORD = some(ALNUM, 8, 24).map(lambda word: word + "7q")

SHAPES = st.one_of(
    some(ALNUM, 34).map(lambda t: "h" + "f_" + t),
    some(ALNUM, 36).map(lambda t: "gh" + "p_" + t),
    some(ALNUM + "_", 60).map(lambda t: "github" + "_pat_" + t),
    some(ALNUM, 20).map(lambda t: "gl" + "pat-" + t),
    some(string.ascii_uppercase + string.digits, 16).map(lambda t: "AK" + "IA" + t),
    some(ALNUM, 35).map(lambda t: "AI" + "za" + t),
    some(HEX, 32).map(lambda t: "da" + "pi" + t),
    some(ALNUM, 36).map(lambda t: "np" + "m_" + t),
    some(ALNUM, 24).map(lambda t: "hv" + "s." + t),
    some(ALNUM, 43).map(lambda t: "sha" + "256~" + t),
    some(ALNUM, 48).map(lambda t: "sk-" + t),
    some(ALNUM, 30).map(lambda t: "xo" + "xb-" + t),
    some(ALNUM, 20, 40).map(lambda t: "ey" + "J" + t + "." + t + "." + t),
)
PLACES = (
    "remote: {} is refused", "[rank3]: RuntimeError: {}", "({})", "'{}'", "a={},b=2",
    "https://x.example/?t={}&l=5", "\x1b[31m{}\x1b[0m", 'File "x.py": {}',
)  # fmt: skip
NAMED = (
    "export DB_PASSWORD={}", "API_TOKEN={} torchrun train.py", 'secret_key = "{}"', "  api-key: {}",
    '{{"clientSecret":"{}"}}', '{{\\"authToken\\": \\"{}\\"}}', "--auth-token {} --lr 1", "--password='{}'",  # noqa: E501
    "['t.py', '--api-key', '{}']", "environ({{'SOME_SECRET': '{}'}})", "x?access_token={}&limit=5",
    '{{"name": "CI_TOKEN", "value": "{}"}}', "Password={};Encrypt=yes", "redis://:{}@r.example:6379/0",  # noqa: E501
    "postgresql://u:{}@db.example:5432/x", "curl -u bot:{} https://a.example", "mysql -uroot -p{} runs",  # noqa: E501
    "machine h.example login bot password {}", "Authorization: Bearer {}", "x-api-key: {}",
    "db.example:5432:runs:bot:{}", "docker login r.example -u me -p {}", "sshpass -p {} ssh h",
    "Cookie: sid={}", "<password>{}</password>", "setenv WANDB_API_KEY {}", "mlflow_tracking_password: {}",  # noqa: E501
)  # fmt: skip


@given(SHAPES, st.sampled_from(PLACES))
@settings(max_examples=300, deadline=None)
def test_a_shape_is_hidden_wherever_it_stands(secret: str, place: str) -> None:
    assert secret not in redactor().text(place.format(secret))


@given(PASSWORD, st.sampled_from(NAMED))
@settings(max_examples=400, deadline=None)
def test_what_stands_beside_a_name_is_hidden(secret: str, place: str) -> None:
    text = place.format(secret)
    once = redactor().text(text)
    assert secret not in once
    assert redactor().text(once) == once


@given(some(ALNUM + "!%/ ö'\"", 9, 30).filter(lambda t: t.strip() == t), st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_a_value_of_the_environment_is_hidden_in_every_form(secret: str, around: str) -> None:
    r = redactor({"MY_SERVICE_CREDENTIAL": secret})
    raw = secret.encode()
    for form in (
        secret,
        quote(raw, safe=""),
        base64.b64encode(raw).decode().rstrip("="),
        repr(secret)[1:-1],
    ):
        if form.startswith("/") or secret.startswith("/"):
            continue
        assert form not in r.text(f"{around} saw {form} there")


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_nothing_makes_it_raise_or_leaves_a_control(text: str) -> None:
    shown = redactor({"A_TOKEN": "abcdef123"}).text(text)
    assert not any(ord(c) < 32 and c != "\n" or 127 <= ord(c) < 160 for c in shown)
    assert clean(shown) == shown


@pytest.mark.parametrize(
    "line",
    [
        "tokenizer = AutoTokenizer.from_pretrained(name)", "max_tokens=4096 pad_token_id: 0",
        "throughput 11832.4 tokens/sec", "KeyError: 'WORLD_SIZE'", "nvidia-cublas-cu12==12.4.5.8",
        "NCCL version 2.21.5+cuda12.4", "commit 0123456789abcdef0123456789abcdef01234567",
        "  File \"/usr/lib/python3.11/site-packages/torch/x.py\", line 3, in token", "0000:1a:00.0 NVIDIA",  # noqa: E501
        "token = os.environ['HF_TOKEN']", "WANDB_API_KEY is not set", "OLDPWD=/workspace", "12:30:45.123456",  # noqa: E501
        "torch::autograd::Engine c10d::Reducer at::Tensor", "backward pass: 12.3 ms", "key_path: /x/y",  # noqa: E501
        "listen on 127.0.0.1:29500 [::1]:29500 0.0.0.0:*", "password: <your password>", "libnccl.so.2.21.5.1",  # noqa: E501
    ],
)  # fmt: skip
def test_ordinary_lines_stay_as_they_are(line: str) -> None:
    assert redactor().text(line) == line


def test_who_and_where_keep_their_relations() -> None:
    r = redactor()
    shown = r.text(
        "gpu-n07:1 GPU-N07.hpc.example.org none_gpu_n07_hpc_example_org_0\n"
        "10.4.2.7 10.4.2.8 10.4.3.9 ::ffff:10.4.2.7 8.8.4.4 /home/mlange/x mlange@hpc.example.org"
    )
    assert shown.count("host-1") == 3
    assert (
        "ip-1(private,net-1) ip-2(private,net-1) ip-3(private,net-2) ::ffff:ip-1(private,net-1)"
        in shown
    )
    assert "ip-4(public,net-3) ~/x" in shown
    assert "mlange" not in shown


@pytest.mark.parametrize("cut", [1, 7, 64, 4096])
def test_a_stream_hides_what_crosses_the_edges_of_its_blocks(
    cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddp_assist.app.report.redact.BLOCK", cut)
    body = "\n".join(f"{n:04d}keybody" for n in range(60))
    pem = f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"
    log = f"start\npassword=hunter2hunter2\n{pem}\nafter the key\n"
    out = io.BytesIO()
    redact_stream(io.BytesIO(log.encode()), out, redactor())
    shown = out.getvalue().decode()
    assert "keybody" not in shown and "hunter2" not in shown
    assert shown.startswith("start\n") and shown.endswith("after the key\n")
