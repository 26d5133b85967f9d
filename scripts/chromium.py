"""A Chromium to drive ComfyUI's web page with: found on this machine, or installed with apt-get.

Standard library only: scripts/test.py asks for it before its environment is made.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from environment import UserError, say

# Chrome and Edge are Chromium too.
COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
PLACES = {
    "darwin": (
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    ),
    "win32": (
        r"%ProgramFiles%\Google\Chrome\Application\chrome.exe",
        r"%ProgramFiles(x86)%\Google\Chrome\Application\chrome.exe",
        r"%LocalAppData%\Google\Chrome\Application\chrome.exe",
        r"%ProgramFiles(x86)%\Microsoft\Edge\Application\msedge.exe",
        r"%ProgramFiles%\Microsoft\Edge\Application\msedge.exe",
    ),
}
HOW_TO_GET = (
    "`python scripts/test.py --install-chromium` gets it on Debian and Ubuntu; elsewhere install Chrome or Chromium, "
    "or set CHROMIUM to the path of one"
)


def find_chromium() -> Path | None:
    """The browser that CHROMIUM names, else the first that is found; None where there is none."""
    named = os.environ.get("CHROMIUM")
    if named:
        found = shutil.which(Path(named).expanduser())
        if not found:
            raise UserError(f"CHROMIUM is {named}, which is not a program: set it to a Chromium or unset it.")
        return Path(found)
    commands = (shutil.which(command) for command in COMMANDS)
    places = (os.path.expandvars(place) for place in PLACES.get(sys.platform, ()))
    return next((Path(found) for found in (*commands, *places) if found and Path(found).is_file()), None)


def install_chromium() -> None:
    """Get Chromium with apt-get, unless there is one."""
    if find_chromium():
        return
    apt_get = [shutil.which("apt-get") or ""]
    if not apt_get[0]:
        raise UserError("--install-chromium works where apt-get is: install Chrome or Chromium by hand instead.")
    if not is_root():
        sudo = shutil.which("sudo")
        if not sudo:
            raise UserError("There is no sudo to install programs with: run `apt-get install chromium` as root.")
        apt_get.insert(0, sudo)
    run([*apt_get, "update"])
    install = [*apt_get, "install", "--yes", "--no-install-recommends"]
    worked = run([*install, "chromium"]) or run([*install, "chromium-browser"])  # Debian's name, Ubuntu's name
    if not worked or not find_chromium():
        raise UserError("apt-get installed no Chromium (its output is above): install Chrome by hand instead.")


def is_root() -> bool:
    return os.name == "posix" and os.geteuid() == 0


def run(command: list[str]) -> bool:
    say(f"Running {' '.join(command)}.")
    return subprocess.run(command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}).returncode == 0
