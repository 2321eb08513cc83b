"""The APIs of WeChat, WeCom, DingTalk and Telegram as far as the assistant calls them.

One server plays all four: their paths differ. It knows their error codes, issues tokens that end,
keeps rate limits, and causes trouble when told to: an error, a wait, a connection that breaks
before or after the message was taken.
"""

from __future__ import annotations

import hmac
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import orjson

from ironbeat.workloads.assistant.channels.dingtalk import sign

TOKEN_SECONDS = 7200

#: What an account of each channel is allowed: messages, seconds.
REAL_LIMITS: Mapping[str, tuple[int, float]] = {
    "telegram": (20, 20.0),
    "dingtalk": (20, 60.0),
    "wechat": (20, 60.0),
    "wecom": (30, 60.0),
}


@dataclass(frozen=True, slots=True)
class Said:
    """A message that a channel took, and would show to its user."""

    channel: str
    chat: str
    text: str
    at: float
    way: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happens to the next message instead of success.

    ``error``: the channel's own code for "later" with ``seconds`` where it can say so; ``status``:
    an HTTP status; ``deaf``: the connection breaks and the message was not taken; ``mute``: it was
    taken, and the connection breaks.
    """

    kind: Literal["error", "status", "deaf", "mute"]
    status: int = 500
    seconds: float | None = None


@dataclass(slots=True)
class _Answer:
    body: dict[str, Any]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class _Broken(Exception):
    """The connection is to be closed without an answer."""


class ChannelApis:
    """The server; use it as a context manager.

    ``secrets`` are the app secrets it accepts (empty: any). ``limits``: messages and seconds a chat
    may be sent, by channel. ``on_said`` is called with each message that was taken.
    """

    def __init__(
        self,
        *,
        secrets: Mapping[str, str] | None = None,
        limits: Mapping[str, tuple[int, float]] | None = None,
        on_said: Callable[[Said], None] | None = None,
        port: int = 0,
    ) -> None:
        self.secrets = dict(secrets or {})
        self.limits = dict(limits or {})
        self.said: list[Said] = []
        self.busy_signs: Counter[str] = Counter()
        self.tokens_issued: Counter[str] = Counter()
        self.token_seconds = TOKEN_SECONDS
        self._on_said = on_said
        self._troubles: deque[Trouble] = deque()
        self._tokens: dict[str, float] = {}
        self._lately: dict[tuple[str, str], deque[float]] = {}
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ChannelApis:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def cause(self, *troubles: Trouble) -> None:
        """Let the next messages meet these, in order."""
        with self._lock:
            self._troubles.extend(troubles)

    def end_tokens(self) -> None:
        """Let every token that was issued be rejected from now on."""
        with self._lock:
            self._tokens.clear()

    def texts(self, chat: str | None = None) -> list[str]:
        """What was said, to one chat or to all, in order."""
        with self._lock:
            return [each.text for each in self.said if chat in (None, each.chat)]

    # -- requests ----------------------------------------------------------------------------------

    def answer(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: Any
    ) -> _Answer:
        """What a call is answered with. Raises :class:`_Broken`."""
        if path == "/trial/said":
            return _Answer({"count": len(self.said)})
        if path.startswith("/bot"):
            return self._telegram(path, body)
        route = {
            "/cgi-bin/stable_token": self._wechat_token,
            "/cgi-bin/gettoken": self._wecom_token,
            "/cgi-bin/message/custom/send": self._wechat_send,
            "/cgi-bin/message/custom/typing": self._wechat_typing,
            "/cgi-bin/message/send": self._wecom_send,
            "/robot/sendBySession": self._dingtalk_session,
            "/robot/send": self._dingtalk_robot,
            "/v1.0/oauth2/accessToken": self._dingtalk_token,
            "/v1.0/robot/oToMessages/batchSend": self._dingtalk_app,
            "/v1.0/robot/groupMessages/send": self._dingtalk_app,
        }.get(path)
        return route(query, headers, body) if route else _Answer({"error": "no such path"}, 404)

    def _telegram(self, path: str, body: Any) -> _Answer:
        _, bot, method = path.split("/", 2)
        if not self._is_secret("telegram", bot.removeprefix("bot")):
            return _telegram_error(401, "Unauthorized")
        if method == "sendChatAction":
            self.busy_signs["telegram"] += 1
            return _Answer({"ok": True, "result": True})
        text = str(body.get("text", ""))
        if not 1 <= len(text) <= 4096:
            return _telegram_error(400, "Bad Request: message is too long")
        wait = self._take("telegram", str(body["chat_id"]), text, "sendMessage")
        if wait is not None:
            answer = _telegram_error(429, f"Too Many Requests: retry after {wait:g}")
            answer.body["parameters"] = {"retry_after": wait}
            return answer
        result = {"message_id": len(self.said), "chat": {"id": body["chat_id"]}, "text": text}
        return _Answer({"ok": True, "result": result})

    def _wechat_token(self, query: Any, headers: Any, body: Any) -> _Answer:
        if not self._is_secret("wechat", str(body.get("secret"))):
            return _coded(40125, "invalid appsecret")
        return _Answer({"access_token": self._issue("wechat"), "expires_in": self.token_seconds})

    def _wecom_token(self, query: Any, headers: Any, body: Any) -> _Answer:
        if not self._is_secret("wecom", query.get("corpsecret", "")):
            return _coded(40001, "invalid credential")
        token = {"access_token": self._issue("wecom"), "expires_in": self.token_seconds}
        return _Answer({"errcode": 0, "errmsg": "ok", **token})

    def _wechat_send(self, query: Any, headers: Any, body: Any) -> _Answer:
        if not self._holds(query.get("access_token", "")):
            return _coded(42001, "access_token expired")
        text = body["text"]["content"]
        if len(text.encode()) > 2048:
            return _coded(45002, "content size out of limit")
        if self._take("wechat", body["touser"], text, "custom/send") is not None:
            return _coded(45009, "reach max api daily quota limit")
        return _coded(0, "ok")

    def _wechat_typing(self, query: Any, headers: Any, body: Any) -> _Answer:
        self.busy_signs["wechat"] += 1
        return _coded(0, "ok")

    def _wecom_send(self, query: Any, headers: Any, body: Any) -> _Answer:
        if not self._holds(query.get("access_token", "")):
            return _coded(42001, "access_token expired")
        text = body["text"]["content"]
        if len(text.encode()) > 2048:
            return _coded(45002, "content size out of limit")
        if body.get("enable_duplicate_check") and self._is_copy(f"{body['touser']}\n{text}"):
            return _Answer({"errcode": 0, "errmsg": "ok", "msgid": "duplicate"})
        if self._take("wecom", body["touser"], text, "message/send") is not None:
            return _coded(45033, "api concurrent out of limit")
        return _Answer({"errcode": 0, "errmsg": "ok", "msgid": f"m{len(self.said)}"})

    def _dingtalk_session(self, query: Any, headers: Any, body: Any) -> _Answer:
        text = body["text"]["content"]
        if self._take("dingtalk", query.get("session", ""), text, "session") is not None:
            return _coded(130101, "send too fast, exceed 20 times per minute")
        return _coded(0, "ok")

    def _dingtalk_robot(self, query: Any, headers: Any, body: Any) -> _Answer:
        secret = self.secrets.get("dingtalk_robot", "")
        expected = sign(query.get("timestamp", ""), secret)
        if secret and not hmac.compare_digest(query.get("sign", ""), expected):
            return _coded(310000, "sign not match")
        if self._take("dingtalk", "robot", body["text"]["content"], "robot") is not None:
            return _coded(130101, "send too fast, exceed 20 times per minute")
        return _coded(0, "ok")

    def _dingtalk_token(self, query: Any, headers: Any, body: Any) -> _Answer:
        if not self._is_secret("dingtalk", str(body.get("appSecret"))):
            return _Answer({"code": "invalidClientIdOrSecret", "message": "wrong secret"}, 400)
        return _Answer({"accessToken": self._issue("dingtalk"), "expireIn": self.token_seconds})

    def _dingtalk_app(self, query: Any, headers: Any, body: Any) -> _Answer:
        if not self._holds(headers.get("x-acs-dingtalk-access-token", "")):
            return _Answer({"code": "InvalidAuthentication", "message": "token is invalid"}, 401)
        chat = str(body.get("openConversationId") or body["userIds"][0])
        text = orjson.loads(body["msgParam"])["content"]
        if self._take("dingtalk", chat, text, "app") is not None:
            code = "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"
            return _Answer({"code": code, "message": "too fast"}, 403)
        return _Answer({"processQueryKey": f"k{len(self.said)}"})

    # -- state -------------------------------------------------------------------------------------

    def _take(self, channel: str, chat: str, text: str, way: str) -> float | None:
        """Take a message, or tell how many seconds to wait. Raises what trouble does."""
        with self._lock:
            trouble = self._troubles.popleft() if self._troubles else None
            if trouble is not None:
                if trouble.kind == "error":
                    return trouble.seconds or 1.0
                if trouble.kind == "status":
                    raise _Failed(trouble.status, trouble.seconds)
                if trouble.kind == "deaf":
                    raise _Broken
            wait = self._wait(channel, chat)
            if wait is not None:
                return wait
            said = Said(channel, chat, text, time.time(), way)
            self.said.append(said)
            self._seen[f"{chat}\n{text}"] = said.at
        if self._on_said is not None:
            self._on_said(said)
        if trouble is not None:
            raise _Broken
        return None

    def _wait(self, channel: str, chat: str) -> float | None:
        if channel not in self.limits:
            return None
        most, seconds = self.limits[channel]
        now, lately = time.time(), self._lately.setdefault((channel, chat), deque())
        while lately and lately[0] < now - seconds:
            lately.popleft()
        if len(lately) >= most:
            return round(lately[0] + seconds - now + 0.1, 1)
        lately.append(now)
        return None

    def _is_copy(self, key: str) -> bool:
        with self._lock:
            return time.time() - self._seen.get(key, 0.0) < 1800

    def _is_secret(self, channel: str, given: str) -> bool:
        known = self.secrets.get(channel)
        return known is None or hmac.compare_digest(given.encode(), known.encode())

    def _issue(self, channel: str) -> str:
        with self._lock:
            self.tokens_issued[channel] += 1
            token = f"{channel}-{self.tokens_issued[channel]}"
            self._tokens[token] = time.time() + self.token_seconds
            return token

    def _holds(self, token: str) -> bool:
        with self._lock:
            return self._tokens.get(token, 0.0) > time.time()


class _Failed(Exception):
    """The call is answered with an HTTP status."""

    def __init__(self, status: int, retry_after: float | None) -> None:
        super().__init__(status)
        self.answer = _Answer({"error": "trouble"}, status)
        if retry_after is not None:
            self.answer.headers["Retry-After"] = f"{retry_after:g}"


def _coded(code: int, message: str) -> _Answer:
    return _Answer({"errcode": code, "errmsg": message})


def _telegram_error(code: int, description: str) -> _Answer:
    return _Answer({"ok": False, "error_code": code, "description": description}, code)


def _handler_of(apis: ChannelApis) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Each answer goes out at once, in one piece.
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self._handle(orjson.loads(self.rfile.read(length) or b"{}"))

        def do_GET(self) -> None:
            self._handle({})

        def _handle(self, body: Any) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                answer = apis.answer(parts.path, query, headers, body)
            except _Failed as failed:
                answer = failed.answer
            except _Broken:
                self.close_connection = True
                return
            content = orjson.dumps(answer.body)
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

        def log_message(self, *arguments: Any) -> None:
            """Nothing: a test's output is its own."""

    return Handler


def main() -> None:
    """Play the channels in a process of its own, until standard input ends; prints the address."""
    with ChannelApis() as apis:
        print(apis.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
