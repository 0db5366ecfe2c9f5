"""A server of our own on this machine, and what may be left on the disk when it fails."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gengap.core.errors import BadInput
from gengap.data.fetch import fetch


class Shop:
    """A server: `goods` maps a path to bytes, or to a function that answers in a way of its own."""

    def __init__(self):
        self.goods, self.asked, self.headers = {}, [], []
        self.closing = threading.Event()
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                shop.asked.append(self.path)
                shop.headers.append(self.headers)
                answer = shop.goods.get(self.path)
                if answer is None:
                    self.send_error(404)
                elif callable(answer):
                    answer(self)
                else:
                    shop.send(self, answer, len(answer))

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/sets"

    @staticmethod
    def send(handler, content, promised):
        """Answer with `content`, and promise a length that need not be its own."""
        handler.send_response(200)
        if promised is not None:
            handler.send_header("Content-Length", str(promised))
        handler.end_headers()
        handler.wfile.write(content)


@pytest.fixture
def shop(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    shop = Shop()
    thread = threading.Thread(target=shop.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield shop
    shop.closing.set()
    shop.server.shutdown()
    shop.server.server_close()
    thread.join()


def everything(root):
    """All files below a folder, hidden ones too."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


@pytest.fixture
def listing():
    return everything


@pytest.fixture
def refuses(tmp_path, shop):
    """Fetching into `tmp_path` fails with one sentence, and changes nothing on the disk."""

    def check(says, error=BadInput, name="mnist"):
        before = everything(tmp_path)
        with pytest.raises(error, match=says) as caught:
            fetch(name, tmp_path, base_url=shop.url)
        assert "\n" not in str(caught.value)
        assert everything(tmp_path) == before

    return check
