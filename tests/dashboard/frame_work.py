"""How much script the page runs for each frame, with 63 channels that stream in real time.

By hand: python -m tests.dashboard.frame_work [seconds]

Time of the page's main thread by its own clock, not by the wall: what other processes take is not
counted. A frame's work is its animation callbacks and all messages since the frame before.
"""

import json
import shutil
import sys

import numpy as np
from playwright.sync_api import sync_playwright

from tests.dashboard.fake_server import FakeSession, served
from tests.dashboard.scenes import Scene

_CATEGORIES = "devtools.timeline,disabled-by-default-devtools.timeline,toplevel"
_SCRIPT = {"FunctionCall", "EvaluateScript", "RunMicrotasks", "v8.run"}


def measure(seconds: float) -> None:
    with sync_playwright() as playwright, served(FakeSession(Scene("live")), plays=True) as address:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.goto(address)
        page.wait_for_selector("body[data-state]")
        page.wait_for_timeout(3000)
        tracer = browser.new_browser_cdp_session()
        events: list[dict] = []
        done: list[dict] = []
        tracer.on("Tracing.dataCollected", lambda part: events.extend(part["value"]))
        tracer.on("Tracing.tracingComplete", lambda said: done.append(said))
        tracer.send("Tracing.start", {"categories": _CATEGORIES, "transferMode": "ReportEvents"})
        page.wait_for_timeout(1000 * seconds)
        tracer.send("Tracing.end")
        while not done:
            page.wait_for_timeout(50)
        told = page.locator("#eeg-facts").inner_text()
        browser.close()
    _tell(events, told)


def _tell(events: list[dict], told: str) -> None:
    frames = [e for e in events if e["name"] == "FireAnimationFrame"]
    thread = max({(e["pid"], e["tid"]) for e in frames}, key=lambda t: _count(frames, t))
    ours = sorted((e for e in events if (e["pid"], e["tid"]) == thread), key=lambda e: e["ts"])
    starts = np.array([e["ts"] for e in ours if e["name"] == "FireAnimationFrame"])
    work_ms = np.zeros(len(starts) + 1)
    end = 0.0
    for event in ours:  # what runs inside of another script is in its time already
        is_script = event["name"] in _SCRIPT or event["name"] == "FireAnimationFrame"
        if not is_script or event.get("ph") != "X" or event["ts"] < end:
            continue
        end = event["ts"] + event["dur"]
        work_ms[np.searchsorted(starts, event["ts"], "right")] += event.get("tdur", 0) / 1000
    each = work_ms[1:]
    at = {name: round(float(np.percentile(each, p)), 2) for name, p in (("p50", 50), ("p95", 95))}
    print(json.dumps({"frames": len(each), **at, "max": round(float(each.max()), 2), "page": told}))


def _count(frames: list[dict], thread: tuple[int, int]) -> int:
    return sum((e["pid"], e["tid"]) == thread for e in frames)


if __name__ == "__main__":
    measure(float(sys.argv[1]) if len(sys.argv) > 1 else 20)
