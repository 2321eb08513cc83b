"""What only the host itself can tell, as one JSON object: ``facts.py JSON``.

Reads /proc, pidfiles, disks, systemd's units and, with ``"deep"``, asks what listens here. Standard
library only; changes nothing. What cannot be read is left out.
"""

import glob
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

# The settings that a task needs; none is secret.
SETTINGS = ("API_HOST", "API_PORT", "FLOWER_HOST", "FLOWER_PORT", "TIMEZONE")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
TICKS = os.sysconf("SC_CLK_TCK")


def read(path):
    """The text of a file; empty where there is none or it may not be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def uptime():
    """Seconds since this host (a container: since its first process) started."""
    since_boot = float(read("/proc/uptime").split()[0] or 0)
    first = stat_of(1)
    return since_boot - first["started"] if first else since_boot


def stat_of(pid):
    """Parent, memory, processor time and start (seconds after boot) of a process."""
    text = read(f"/proc/{pid}/stat")
    if not text:
        return None
    # The name may hold anything, so fields are counted from its closing bracket.
    fields = text[text.rindex(")") + 2 :].split()
    return {
        "ppid": int(fields[1]),
        "rss_kb": int(fields[21]) * PAGE_KB,
        "cpu_seconds": (int(fields[11]) + int(fields[12])) / TICKS,
        "started": int(fields[19]) / TICKS,
    }


def processes(root, boot):
    """Every process by pid, with the release it runs."""
    found = {}
    pattern = re.compile(re.escape(root) + r"/releases/([^/\0]+)/")
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        stat = stat_of(name)
        if stat is None:
            continue
        started = stat.pop("started")
        release = pattern.search(read(f"/proc/{name}/cmdline"))
        stat["release"] = release.group(1) if release else None
        stat["seconds"] = round(max(0.0, boot - started), 1)
        found[name] = stat
    return found


def below(found, roots):
    """The processes of ``roots`` and all that descend from them."""
    kept = {str(root) for root in roots} & set(found)
    grown = True
    while grown:
        more = {pid for pid, each in found.items() if str(each["ppid"]) in kept} - kept
        kept |= more
        grown = bool(more)
    return {pid: found[pid] for pid in kept}


def release(root):
    """The name of the release that is current."""
    try:
        return os.path.basename(os.readlink(f"{root}/current"))
    except OSError:
        return None


def settings(path):
    """What of the suite's settings is neither secret nor written anywhere else."""
    found = {}
    for line in read(path).splitlines():
        name, _, value = line.partition("=")
        name = name.strip().removeprefix("IRONBEAT_")
        if name in SETTINGS:
            found[name.lower()] = value.strip().strip("'\"")
    return found


def environment(pid, name):
    """A variable that a process was started with; empty where there is none to be read."""
    for pair in read(f"/proc/{pid}/environ").split("\0"):
        found, _, value = pair.partition("=")
        if found == name:
            return value
    return ""


def pidfiles(directory):
    """The number in each pidfile, by the program's name, and whether it is locked.

    A program holds a lock on its pidfile for as long as it lives.
    """
    locked = set()
    for line in read("/proc/locks").splitlines():
        fields = line.split()
        if "->" not in fields and len(fields) > 5:
            locked.add(fields[5].rpartition(":")[2])
    found = {}
    for path in sorted(glob.glob(f"{directory}/*.pid")):
        text = read(path).strip()
        name = os.path.basename(path)[: -len(".pid")]
        try:
            inode = str(os.stat(path).st_ino)
        except OSError:
            continue
        found[name] = {"pid": int(text) if text.isdigit() else None, "locked": inode in locked}
    return found


def disks(paths):
    """Room on each file system that one of the paths lies on."""
    found: dict = {}
    for path in paths:
        while path != "/" and not os.path.exists(path):
            path = os.path.dirname(path)
        try:
            device = os.stat(path).st_dev
            usage = shutil.disk_usage(path)
            nodes = os.statvfs(path)
        except OSError:
            continue
        found.setdefault(
            device,
            {
                "path": path,
                "total": usage.total,
                "free": usage.free,
                "free_nodes": nodes.f_favail / nodes.f_files if nodes.f_files else None,
            },
        )
    return list(found.values())


def memory():
    """The host's memory in kB; a container shows that of the machine it is on."""
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", read("/proc/meminfo"), re.MULTILINE))
    return {
        "total_kb": int(found.get("MemTotal", 0)),
        "available_kb": int(found.get("MemAvailable", 0)),
    }


def units(patterns):
    """State, pid and start of systemd's units, by name; None where systemd does not run."""
    if not patterns:
        return {}
    if not os.path.isdir("/run/systemd/system"):
        return None
    names = "Id,LoadState,ActiveState,SubState,MainPID"
    done = subprocess.run(
        ["systemctl", "show", "--all", f"--property={names}", *patterns],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=5,
    )
    found = {}
    for block in done.stdout.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id") and values.get("LoadState") == "loaded":
            found[values["Id"]] = {
                "state": values.get("ActiveState", ""),
                "detail": values.get("SubState", ""),
                "pid": int(values.get("MainPID") or 0),
            }
    return found


def answer(address, port, path="/"):
    """What an HTTP server here says: status and the beginning of its body, or what is wrong."""
    import http.client

    connection = http.client.HTTPConnection(address, int(port), timeout=4)
    try:
        connection.request("GET", path, headers={"Host": f"{address}:{port}"})
        response = connection.getresponse()
        return {"status": response.status, "body": response.read(4096).decode(errors="replace")}
    except (OSError, http.client.HTTPException) as error:
        return {"error": getattr(error, "strerror", None) or str(error) or type(error).__name__}
    finally:
        connection.close()


def certificate(wanted):
    """The certificate in its file and the one that is served, both as PEM."""
    text = read(wanted["path"])
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    if begin not in text:
        return None
    # The first of a chain is the host's own.
    found = {"file": text[text.index(begin) : text.index(end) + len(end)]}
    try:
        found["served"] = served_certificate(wanted["port"])
    except (OSError, ValueError) as error:
        found["error"] = getattr(error, "strerror", None) or str(error)
    return found


def served_certificate(port):
    """The certificate that this host's TLS server shows."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # It is compared with the file; nothing is sent.
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=4) as plain,
        context.wrap_socket(plain) as wrapped,
    ):
        return ssl.DER_cert_to_PEM_cert(wrapped.getpeercert(True) or b"")


def main(wanted):
    """Everything that is wanted."""
    root = wanted["root"]
    up = uptime()
    boot = float(read("/proc/uptime").split()[0] or 0)
    known = settings(wanted["settings"])
    seen = units(wanted["units"])
    supervisord = read(wanted["supervisord"]).strip()
    roots = [supervisord, *(each["pid"] for each in (seen or {}).values())]
    # Where Flower is published under a path it answers under that path alone.
    prefix = environment(supervisord, "FLOWER_URL_PREFIX").strip("/")
    paths = {"api": "/health", "flower": f"/{prefix}/" if prefix else "/"}
    found = {
        "hostname": socket.gethostname(),
        "uptime": up,
        "release": release(root),
        "settings": known,
        "flower_path": paths["flower"],
        "processes": below(processes(root, boot), roots),
        "pidfiles": pidfiles(wanted["pidfiles"]),
        "units": seen,
        "disks": disks(wanted["disks"]),
        "memory": memory(),
        "load": os.getloadavg()[0],
        "processors": os.cpu_count() or 1,
    }
    if wanted.get("certificate"):
        found["certificate"] = certificate(wanted["certificate"])
    for name in wanted.get("http", ()):
        host = known.get(f"{name}_host", "127.0.0.1")
        port = known.get(f"{name}_port", {"api": 8000, "flower": 5555}[name])
        found.setdefault("http", {})[name] = answer(host, port, paths[name])
    # Last, so that the asker knows best when it was true.
    found["time"] = time.time()
    return found


if __name__ == "__main__":
    json.dump(main(json.loads(sys.argv[1])), sys.stdout)
