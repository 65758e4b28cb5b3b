"""A headless Chromium, spoken to over its DevTools pipe; no package is needed for it.

    python -m tests.browser test_pkl/own-sample/report.html docs/report.png [--width 1280] [--dark]
"""

import argparse
import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import tempfile

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser",
                                                "google-chrome"))), None)
TIMEOUT_S = 30


class Browser:
    """One page of a Chromium that ends with the `with` block.

    Attributes:
        requests: addresses that pages asked for, the pages' own among them.
    """

    def __enter__(self):
        self._home = tempfile.mkdtemp()
        # Chromium reads messages from file 3 and writes its own to file 4, each ended by a NUL.
        (read_end, self._to), (self._from, write_end) = os.pipe(), os.pipe()
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{read_end} 4>&{write_end}', "chromium", CHROMIUM,
             "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync",
             "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={self._home}"],
            pass_fds=(read_end, write_end), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(read_end)
        os.close(write_end)
        self._number, self._session, self._waiting = 0, None, b""
        self.requests, self._loaded = [], False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target,
                                   flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self._call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        # Asked to end: Jittor, if it is loaded here, ends a process whose child was killed.
        self._session = None
        try:
            self._call("Browser.close")
            self._process.wait(TIMEOUT_S)
        finally:
            self._process.kill()  # does nothing to a process that has ended
            os.close(self._to)
            os.close(self._from)
            shutil.rmtree(self._home, ignore_errors=True)

    def open(self, path, width, dark=False):
        """Load a file in a window of a width in pixels, in the light or the dark look."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=800,
                   deviceScaleFactor=1, mobile=False)
        self._call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self._loaded = False
        self._call("Page.navigate", url=pathlib.Path(path).resolve().as_uri())
        while not self._loaded:
            self._receive()

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def screenshot(self, height=None):
        """PNG bytes of the page, all of it or its upper part."""
        width, whole = self.evaluate("[innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height or whole, "scale": 1}
        return base64.b64decode(self._call("Page.captureScreenshot", clip=clip,
                                           captureBeyondViewport=True)["data"])

    def _call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self):
        while b"\0" not in self._waiting:
            if not select.select([self._from], [], [], TIMEOUT_S)[0]:
                raise RuntimeError(f"Chromium has said nothing for {TIMEOUT_S} s")
            received = os.read(self._from, 1 << 20)
            if not received:
                raise RuntimeError("Chromium has ended")
            self._waiting += received
        message, _, self._waiting = self._waiting.partition(b"\0")
        event = json.loads(message)
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        self._loaded |= event.get("method") == "Page.loadEventFired"
        return event


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.browser",
                                     description="Stores a screenshot of an HTML file.")
    parser.add_argument("page")
    parser.add_argument("output", help=".png")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, help="of the upper part; by default all of it")
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    if CHROMIUM is None:
        parser.error("no Chromium is installed: apt-get install chromium")
    with Browser() as browser:
        browser.open(arguments.page, arguments.width, arguments.dark)
        pathlib.Path(arguments.output).write_bytes(browser.screenshot(arguments.height))


if __name__ == "__main__":
    main()
