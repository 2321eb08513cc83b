"""One host that carries everything: closed outside, its secrets kept, its programs watched."""

from __future__ import annotations

import base64
import re

import pytest
from hosts import Host, Suite, wait_until

SERVICES = ("postgresql@17-main", "redis-server", "supervisor", "ironbeat-firewall", "ssh")
PROGRAMS = {"beat", "watchdog", "flower", "api"} | {
    f"worker:worker_{number:02}" for number in range(4)
}


@pytest.fixture(scope="module")
def host(suite: Suite) -> Host:
    return suite.one("workers")


def all_running(host: Host) -> bool:
    programs = host.programs()
    return set(programs) == PROGRAMS and all(state == "RUNNING" for state, _ in programs.values())


# -- services


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_runs(host: Host, name: str) -> None:
    assert host.out(f"systemctl is-active {name}") == "active"


def test_nothing_failed_at_boot(host: Host) -> None:
    assert host.out("systemctl list-units --failed --no-legend --plain") == ""


def test_every_program_runs(host: Host) -> None:
    wait_until(lambda: all_running(host), 60, "all programs RUNNING")


def test_an_operator_uses_supervisorctl_without_being_root(host: Host) -> None:
    host.out("id keeper 2>/dev/null || useradd --user-group --groups ironbeat-ops keeper")
    host.out("id stranger 2>/dev/null || useradd --user-group stranger")
    assert "RUNNING" in host.out("supervisorctl status", user="keeper")
    assert host.run("supervisorctl status", user="stranger").returncode != 0


def test_the_programs_are_bounded_together(host: Host) -> None:
    properties = "-p MemoryMax -p CPUQuotaPerSecUSec -p TimeoutStopUSec"
    shown = host.out(f"systemctl show supervisor {properties}")
    # Four workers of 512 MB and half a CPU each; beat 256, watchdog 192, flower 384, api 1024 MB.
    assert "MemoryMax=4093640704" in shown  # 3904 MiB
    quota = next(line for line in shown.splitlines() if line.startswith("CPUQuotaPerSecUSec="))
    assert float(quota.partition("=")[2].rstrip("s")) == 4.2  # 4.2s, or 4.200000s
    assert "TimeoutStopUSec=16min" in shown  # 900 s drain + 30 s supervisord + 30 s


def test_sshd_takes_keys_only(host: Host) -> None:
    effective = host.out("sshd -T")
    for line in (
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "permitrootlogin without-password",
    ):
        assert line in effective


# -- from outside


def test_only_ssh_answers_from_outside(host: Host) -> None:
    assert host.open_ports() == {22}


def test_nothing_listens_beyond_loopback_but_ssh(host: Host) -> None:
    listening = [line.split()[3] for line in host.out("ss -Htln").splitlines()]
    public = {each for each in listening if not each.startswith(("127.", "[::1]"))}
    assert public == {"0.0.0.0:22", "[::]:22"}


# -- secrets


def test_the_vault_file_is_only_its_owners(suite: Suite) -> None:
    path = suite.scenario / "inventory/group_vars/all/vault.yml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(suite.secrets) == 11
    assert all(len(secret) >= 32 for secret in suite.secrets.values())


def test_files_with_secrets_have_the_right_modes(host: Host) -> None:
    assert host.out("stat -c '%a %U %G' /etc/ironbeat/env") == "640 root ironbeat"
    assert host.out("stat -c '%a %U %G' /etc/redis/users.acl") == "640 redis redis"
    assert host.out("stat -c '%a %U' /etc/ironbeat") == "750 root"
    assert host.out("stat -c '%a %G' /var/log/ironbeat") == "2750 ironbeat-ops"


def test_the_programs_may_not_write_where_root_writes(host: Host) -> None:
    for place in ("/run/ironbeat", "/var/log/ironbeat", "/etc/ironbeat", "/opt/ironbeat/current/"):
        assert host.run(f"touch {place}/x", user="ironbeat").returncode != 0, place


def test_no_secret_stands_in_a_process_list(suite: Suite, host: Host) -> None:
    shown = host.out("ps axww -o args=")
    assert "ironbeat worker" in shown
    assert [name for name, secret in suite.secrets.items() if secret in shown] == []
    environments = host.out("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert [name for name, secret in suite.secrets.items() if secret in environments] == []


def secrets_in(suite: Suite, host: Host, search: str) -> str:
    """What `search` prints, a command that reads the secrets as patterns from /root/patterns."""
    command = f"umask 077 && cat >/root/patterns && {search}; rm /root/patterns"
    return host.out(command, stdin="".join(f"{secret}\n" for secret in suite.secrets.values()))


def test_no_file_that_everybody_may_read_holds_a_secret(suite: Suite, host: Host) -> None:
    find = "find / -xdev -type f -perm -o=r -not -path '/proc/*' -print0"
    assert secrets_in(suite, host, f"{find} | xargs -0 grep -lsF -f /root/patterns") == ""


def test_no_log_holds_a_secret(suite: Suite, host: Host) -> None:
    logs = "journalctl -q -o cat | cat - /var/log/*/* 2>/dev/null"
    assert secrets_in(suite, host, f"{logs} | grep -cF -f /root/patterns") == "0"


# -- the stores refuse strangers


def redis(host: Host, user: str, password: str, command: str) -> str:
    ask = f"redis-cli --user {user} {command} 2>&1"
    return host.out(f"read -r REDISCLI_AUTH; export REDISCLI_AUTH; {ask}", stdin=password + "\n")


def test_redis_refuses_without_a_password(suite: Suite, host: Host) -> None:
    assert "NOAUTH" in host.out("redis-cli ping")
    assert "WRONGPASS" in redis(host, "ironbeat", "wrong", "ping")
    assert "PONG" in redis(host, "ironbeat", suite.secrets["vault_redis_password"], "ping")


@pytest.mark.parametrize(
    "command", ["flushall", "config get dir", "shutdown", "acl list", "keys '*'", "monitor"]
)
def test_redis_keeps_dangerous_commands_from_the_suite(
    suite: Suite, host: Host, command: str
) -> None:
    shown = redis(host, "ironbeat", suite.secrets["vault_redis_password"], command)
    assert "NOPERM" in shown


def test_redis_never_evicts_and_keeps_everything_on_disk(suite: Suite, host: Host) -> None:
    password = suite.secrets["vault_redis_admin_password"]
    for setting, value in (("maxmemory-policy", "noeviction"), ("appendonly", "yes")):
        assert redis(host, "admin", password, f"config get {setting}").split()[-1] == value


def psql(host: Host, password: str, user: str, database: str, query: str) -> str:
    ask = f'psql -XtAw -h 127.0.0.1 -U {user} -d {database} -c "{query}" 2>&1'
    return host.run(f"read -r PGPASSWORD; export PGPASSWORD; {ask}", stdin=password + "\n").stdout


def test_postgresql_refuses_strangers(suite: Suite, host: Host) -> None:
    password = suite.secrets["vault_postgresql_password"]
    assert psql(host, password, "ironbeat", "ironbeat", "SELECT 1").strip() == "1"
    assert "authentication failed" in psql(host, "wrong", "ironbeat", "ironbeat", "SELECT 1")
    assert "no pg_hba.conf entry" in psql(host, password, "ironbeat", "postgres", "SELECT 1")
    assert "no pg_hba.conf entry" in psql(host, password, "postgres", "ironbeat", "SELECT 1")


def test_passwords_are_kept_as_scram(suite: Suite) -> None:
    rows = suite.sql(
        "SELECT rolname, left(rolpassword, 13) FROM pg_authid "
        "WHERE rolpassword IS NOT NULL ORDER BY rolname"
    )
    assert rows == [["ironbeat", "SCRAM-SHA-256"], ["ironbeat_monitor", "SCRAM-SHA-256"]]


def test_who_only_watches_changes_nothing(suite: Suite, host: Host) -> None:
    password = suite.secrets["vault_postgresql_monitor_password"]
    assert psql(host, password, "ironbeat_monitor", "ironbeat", "SELECT 1").strip() == "1"
    assert "permission denied" in psql(
        host, password, "ironbeat_monitor", "ironbeat", "CREATE SCHEMA theirs"
    )


def test_the_database_has_pgvector_and_checksums(suite: Suite) -> None:
    assert suite.sql("SELECT extname FROM pg_extension WHERE extname = 'vector'") == [["vector"]]
    assert suite.sql("SHOW data_checksums") == [["on"]]


# -- Flower and the API ask for a password


def test_flower_wants_its_password(suite: Suite, host: Host) -> None:
    url = "http://127.0.0.1:5555/"
    assert host.http_status(url) == 401
    pair = f"ironbeat:{suite.secrets['vault_flower_password']}"
    credentials = base64.b64encode(pair.encode()).decode()
    assert host.http_status(url, f"Basic {credentials}") == 200


def test_the_api_wants_its_token(suite: Suite, host: Host) -> None:
    url = "http://127.0.0.1:8000/api/runs"
    assert host.http_status(url) == 401
    assert host.http_status(url, f"Bearer {suite.secrets['vault_api_token']}") == 200
    assert host.http_status("http://127.0.0.1:8000/health") == 200


# -- it works


def test_a_schedule_fires_and_its_run_is_in_the_ledger(suite: Suite) -> None:
    query = (
        "SELECT count(*) FROM ironbeat.run_history "
        "WHERE schedule_name = 'errands-tick' AND state = 'succeeded'"
    )
    before = int(suite.sql(query)[0][0])
    wait_until(lambda: int(suite.sql(query)[0][0]) >= before + 2, 40, "two more ticks")


def test_the_workload_of_a_user_runs_beside_the_platforms(suite: Suite, host: Host) -> None:
    ids = suite.submit("errands.run", [0.1] * 8)
    wait_until(lambda: len(suite.ended(ids)) == 8, 30, "eight errands ended")
    assert set(suite.ended(ids).values()) == {"succeeded"}
    assert suite.executions(ids) == dict.fromkeys(ids, (1, 1))


# -- logs and pidfiles


def test_log_rotation_rotates(host: Host) -> None:
    host.out("head -c 11M /dev/zero | tr '\\0' 'x' | fold -w 200 >>/var/log/ironbeat/flower.log")
    host.out("supervisorctl restart flower")  # it writes a line, and supervisord notices the size
    wait_until(
        lambda: host.run("test -s /var/log/ironbeat/flower.log.1").returncode == 0,
        30,
        "flower.log.1",
    )
    assert int(host.out("stat -c %s /var/log/ironbeat/flower.log")) < 1_000_000
    assert host.out("stat -c '%a' /var/log/ironbeat/flower.log") == "640"
    host.out("rm /var/log/ironbeat/flower.log.1")


def test_system_logs_rotate(host: Host) -> None:
    """What supervisord does not rotate, logrotate does."""
    listed = host.out("logrotate --debug /etc/logrotate.conf 2>&1")
    for log in ("/var/log/redis/redis-server", "/var/log/postgresql/"):
        assert log in listed


def pidfile(host: Host, program: str) -> int:
    name = program.partition(":")[2] or program
    return int(host.run(f"cat /run/ironbeat/programs/{name}.pid").stdout.strip() or 0)


def pids_are_right(host: Host) -> bool:
    return all_running(host) and all(
        pid == pidfile(host, program) for program, (_, pid) in host.programs().items()
    )


@pytest.mark.parametrize("program", ["worker:worker_01", "beat", "flower", "api"])
def test_a_pidfile_is_right_after_kill_9(host: Host, program: str) -> None:
    wait_until(lambda: pids_are_right(host), 60, "pidfiles right before")
    before = pidfile(host, program)
    host.out(f"kill -9 {before}")
    wait_until(lambda: pidfile(host, program) not in (0, before), 30, "another pid")
    wait_until(lambda: pids_are_right(host), 60, "pidfiles right after")


def test_killing_supervisord_leaves_nobody_behind(host: Host) -> None:
    before = {pid for _, pid in host.programs().values()}
    host.out("kill -9 $(cat /run/ironbeat/supervisord.pid)")
    wait_until(lambda: pids_are_right(host), 90, "all programs again")
    running = {int(pid) for pid in host.out("pgrep -u ironbeat").split()}
    assert not before & running


def test_everything_comes_back_after_the_host_restarts(suite: Suite, host: Host) -> None:
    host.docker("restart", "--time=120")
    wait_until(lambda: pids_are_right(host), 120, "all programs after the restart")
    wait_until(suite.healthy, 60, "healthy after the restart")
    assert host.open_ports() == {22}
    for name in SERVICES:
        assert host.out(f"systemctl is-active {name}") == "active"


# -- wrong variables


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ("service_task_soft_time_limit=900", "service_task_soft_time_limit"),
        ("service_worker_pool=forks", "service_worker_pool"),
        ("redis_maxmemory_mb=9000000", "redis_maxmemory_mb"),
        ("postgresql_version=16", "pg_upgradecluster"),
        ("firewall_ssh_port=2222", "firewall_ssh_port"),
        ("base_timezone=nowhere", "base_timezone"),
        ('{"supervisor_environment": {"MY_PASSWORD": "x"}}', "supervisor_environment"),
        ('{"service_settings": {"worker_count": 3}}', "worker_count"),
    ],
)
def test_a_wrong_variable_fails_before_anything_changes(
    suite: Suite, variables: str, said: str
) -> None:
    done = suite.playbook("site.yml", "-e", variables)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    recap = done.stdout[done.stdout.index("PLAY RECAP") :]
    assert re.findall(r"changed=(\d+)", recap) == ["0"]


def test_check_mode_tells_and_changes_nothing(suite: Suite, host: Host) -> None:
    before = host.out("cat /etc/redis/redis.conf")
    done = suite.playbook(
        "site.yml", "--check", "--diff", "-e", "redis_databases=32", "--tags", "redis"
    )
    assert done.returncode == 0, done.stdout
    assert "+databases 32" in done.stdout
    assert host.out("cat /etc/redis/redis.conf") == before


def test_the_status_playbook_agrees(suite: Suite) -> None:
    done = suite.playbook("playbooks/status.yml")
    assert done.returncode == 0, done.stdout
    assert "RUNNING" in done.stdout
