"""Laws of the image and of the compose file, and the linters' verdict on both."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "deploy" / "compose.yaml"
EXAMPLE = ROOT / "deploy" / "gateway.yaml"
SECRET_NAME = re.compile(r"token|secret|password|passwd|api_?key|private_?key|_rpc_", re.IGNORECASE)
REFERENCE = re.compile(r"^(\$\{[A-Z0-9_]+(:[-?][^}]*)?\}|file:/\S+)$")
LONG_RANDOM = re.compile(r"\b(?=[A-Za-z0-9_-]*\d)(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{24,}\b")


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) with continued lines joined and comments dropped."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    pairs = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), " ".join(rest.split())) for name, rest in pairs]


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    last = max(at for at, (name, _) in enumerate(found) if name == "FROM")
    return found[last:]


def only(name: str) -> str:
    """The arguments of an instruction that occurs exactly once in the final stage."""
    (value,) = [arguments for found, arguments in final_stage() if found == name]
    return value


def service() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]["seawall"]
    return loaded


def tool(name: str) -> str:
    """The tool's path in this environment; skips the test where it is not installed."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed (pip install '.[check]')")
    return found


def run(*argv: str, env: Mapping[str, str] | None = None) -> None:
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def values(node: object, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, text) of every scalar below a YAML node."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from values(value, f"{path}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from values(value, f"{path}.{number}")
    else:
        yield path, str(node)


# --- image ---------------------------------------------------------------------------------------


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    run(tool("hadolint"), str(DOCKERFILE))


def test_the_image_runs_as_a_numeric_user_that_is_not_root() -> None:
    user, _, group = only("USER").partition(":")
    assert user.isdigit() and int(user) > 0, "Kubernetes can verify runAsNonRoot only for a number"
    assert group.isdigit() and int(group) > 0


def test_nothing_is_copied_or_run_after_the_user_is_dropped() -> None:
    names = [name for name, _ in final_stage()]
    assert not {"RUN", "COPY", "ADD"} & set(names[names.index("USER") :])


def test_the_process_gets_signals_itself_because_no_shell_is_in_between() -> None:
    assert json.loads(only("ENTRYPOINT")) == ["seawall"]
    assert json.loads(only("CMD")) == ["serve", "/etc/seawall/gateway.yaml"]
    assert only("STOPSIGNAL") == "SIGTERM"


def test_dependencies_come_from_the_lock_file_with_hashes() -> None:
    installs = [text for name, text in instructions() if name == "RUN" and " install " in text]
    assert any("--require-hashes" in text and "-r requirements/runtime.txt" in text for text in installs)
    for text in installs:
        for command in text.split("&&"):
            if " install " in command:
                assert "--require-hashes" in command or ("--no-deps" in command and "--no-index" in command)


def test_the_final_stage_builds_nothing() -> None:
    assert not [text for name, text in final_stage() if name == "RUN"]


def test_the_health_check_asks_livez_on_the_published_port_without_curl() -> None:
    check = only("HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[0] == "python"
    assert "http://127.0.0.1:4000/livez" in command[-1]
    assert "4000" in only("EXPOSE").split()
    compile(command[-1], "healthcheck", "exec")


def test_the_health_check_of_compose_is_the_one_of_the_image() -> None:
    check = only("HEALTHCHECK")
    image, composed = json.loads(check[check.index("[") :]), service()["healthcheck"]["test"]
    assert composed[0] == "CMD"
    assert [re.sub(r"\s+", " ", word) for word in composed[1:]] == image


def test_what_the_dockerfile_copies_passes_the_dockerignore() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for name, arguments in instructions()
        if name == "COPY" and not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }
    assert copied == kept


# --- compose -------------------------------------------------------------------------------------


def test_the_compose_file_follows_the_compose_specification() -> None:
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE))


def test_the_container_can_change_nothing_but_tmp_and_gain_nothing() -> None:
    found = service()
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"] and "cap_add" not in found
    assert "no-new-privileges:true" in found["security_opt"]
    assert [mount.partition(":")[0] for mount in found["tmpfs"]] == ["/tmp"]
    assert not found.get("privileged")
    assert found["user"] == only("USER")


def test_ports_are_published_on_loopback_only() -> None:
    assert service()["ports"]
    assert all(port.startswith("127.0.0.1:") for port in service()["ports"])


def test_every_mount_is_read_only_and_its_source_exists() -> None:
    for mount in service()["volumes"]:
        assert mount["read_only"] is True
        assert (COMPOSE.parent / mount["source"]).is_file()


def test_the_mounted_configuration_is_the_one_the_image_starts_with() -> None:
    assert json.loads(only("CMD"))[-1] in [mount["target"] for mount in service()["volumes"]]


def test_the_build_context_holds_the_dockerfile() -> None:
    build = service()["build"]
    assert (COMPOSE.parent / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE.resolve()


def test_compose_waits_longer_for_the_end_than_docker_by_default() -> None:
    assert service()["stop_grace_period"] == "20s"


# --- configuration and secrets -------------------------------------------------------------------


def test_in_the_container_the_gateway_listens_where_the_port_is_published_to() -> None:
    example = yaml.safe_load(EXAMPLE.read_text())
    inside = {port.rpartition(":")[2] for port in service()["ports"]}
    assert example["listen"] == "0.0.0.0:4000"
    assert example["listen"].rpartition(":")[2] in inside


def test_operations_on_all_addresses_have_a_token() -> None:
    operations = yaml.safe_load(EXAMPLE.read_text())["operations"]
    assert operations["listen"].startswith("127.0.0.1:") or REFERENCE.match(operations["token"])


@pytest.mark.parametrize("path", [COMPOSE, EXAMPLE], ids=lambda path: path.name)
def test_a_secret_is_only_ever_a_reference(path: Path) -> None:
    for where, value in values(yaml.safe_load(path.read_text())):
        if SECRET_NAME.search(where.rpartition(".")[2]):
            assert REFERENCE.match(value), f"{where} must be a reference, such as ${{NAME}}"


@pytest.mark.parametrize("path", [DOCKERFILE, COMPOSE, EXAMPLE], ids=lambda path: path.name)
def test_no_file_holds_anything_that_looks_like_a_key(path: Path) -> None:
    assert not LONG_RANDOM.findall(path.read_text())


def test_the_image_is_given_no_secret_by_environment_or_argument() -> None:
    for name, arguments in instructions():
        if name in {"ENV", "ARG"}:
            assert not SECRET_NAME.search(arguments)


def test_every_variable_the_configuration_needs_is_passed_by_compose() -> None:
    needed = set(re.findall(r"\$\{([A-Z0-9_]+)\}", EXAMPLE.read_text()))
    assert needed == set(service()["environment"])


def test_the_gateway_accepts_the_example() -> None:
    if not all(importlib.util.find_spec(name) for name in ("gateway.__main__", "gateway.config.load")):
        pytest.skip("the command line of the gateway is not installed")
    given = {
        "SEAWALL_OPERATIONS_TOKEN": "not-a-secret-but-long-enough",
        "ETHEREUM_RPC_A": "https://a.example.org/rpc",
        "ETHEREUM_RPC_B": "https://b.example.net/rpc",
    }
    run(sys.executable, "-m", "gateway", "check", str(EXAMPLE), env={**os.environ, **given})
