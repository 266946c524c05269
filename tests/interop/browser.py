"""Headless Chromium over its debugging pipe: what a page does, as a person at a keyboard and mouse would see it.

The protocol is spoken directly (JSON, a NUL byte after each message, on descriptors 3 and 4 of the browser), so that neither a driver
nor a library is needed beside Debian's package `chromium`.
"""

import base64
import json
import os
import selectors
import shutil
import subprocess
import tempfile
import time

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe"]
MODIFIERS = {"Control": 2, "Shift": 8}
KEYS = {"ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, "Tab": 9, "Home": 36, "End": 35, "Escape": 27,
        " ": 32}


class Browser:
    """One browser with an empty profile, closed with the `with` block."""

    def __init__(self):
        self.profile = tempfile.mkdtemp(prefix="condlora-chromium-")
        to_browser, self.writing = os.pipe()
        self.reading, from_browser = os.pipe()

        def pipes():
            # The browser reads from 3 and writes to 4, wherever the pipes were made.
            low, high = os.dup(to_browser), os.dup(from_browser)
            os.dup2(low, 3)
            os.dup2(high, 4)

        command = [os.environ.get("CONDLORA_CHROMIUM", "chromium"), *FLAGS, f"--user-data-dir={self.profile}", "about:blank"]
        self.process = subprocess.Popen(command, preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.reading, selectors.EVENT_READ)
        self.buffer, self.number, self.events = b"", 0, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.call("Browser.close")
            self.process.wait(20)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.writing)
        os.close(self.reading)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, session=None, **params):
        """Sends a command and gives its result; events that come meanwhile are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        wanted = self.number
        while True:
            answer = self.receive(60)
            if answer is None:
                raise TimeoutError(method)
            if answer.get("id") == wanted:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def receive(self, seconds):
        """The next message, None after so long without one. An event is kept."""
        until = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            if not self.selector.select(max(0.0, until - time.monotonic())):
                return None
            data = os.read(self.reading, 1 << 20)
            if not data:
                raise OSError("the browser is gone")
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(message)
        if "method" in message:
            self.events.append(message)
        return message

    def page(self, address, **options):
        return Page(self, address, **options)


class Page:
    """A loaded page, with what it asked of the network and what it complained of."""

    def __init__(self, browser, address, width=1280, height=900, dark=False, scripts=True, media=None):
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network", "DOM"]:
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media or "", features=features)
        if not scripts:
            self.call("Emulation.setScriptExecutionDisabled", value=True)
        self.call("Page.navigate", url=address)
        until = time.monotonic() + 60
        while not self.of("Page.loadEventFired"):
            if time.monotonic() > until or browser.receive(60) is None:
                raise TimeoutError(address)

    def call(self, method, **params):
        return self.browser.call(method, session=self.session, **params)

    def of(self, method):
        """The events of one kind so far."""
        return [e["params"] for e in self.browser.events if e["method"] == method and e.get("sessionId") == self.session]

    def requests(self):
        """Every address that was asked for."""
        return [event["request"]["url"] for event in self.of("Network.requestWillBeSent")]

    def complaints(self):
        """Everything in the console and every exception."""
        said = [f"{e['entry']['source']}: {e['entry']['text']}" for e in self.of("Log.entryAdded")]
        said += ["console: " + " ".join(str(a.get("value")) for a in e["args"]) for e in self.of("Runtime.consoleAPICalled")]
        said += [e["exceptionDetails"].get("exception", e["exceptionDetails"]).get("description", "exception")
                 for e in self.of("Runtime.exceptionThrown")]
        return said

    def run(self, expression):
        """The value of a JavaScript expression (a promise is waited for)."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def press(self, key, *modifiers):
        """Presses and lets go of a key."""
        bits = sum(MODIFIERS[name] for name in modifiers)
        common = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": bits}
        text = {"Enter": "\r", " ": " "}.get(key)
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def middle(self, element):
        """Scrolls to what a JavaScript expression gives, and says where its middle is."""
        return self.run(f"(() => {{ const e = {element}; e.scrollIntoView({{block: 'center', behavior: 'instant'}});"
                        " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()")

    def point_at(self, element, part=(0.0, 0.0)):
        """Moves the mouse to the middle of an element (or so many pixels beside it)."""
        x, y = self.middle(element)
        # The first movement after a scroll only tells the page where the mouse is.
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + part[0] + 1, y=y + part[1])
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + part[0], y=y + part[1])

    def click(self, element):
        self.point_at(element)
        x, y = self.middle(element)
        for kind in ["mousePressed", "mouseReleased"]:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path, whole=False):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))

    def pdf(self):
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)["data"])
