"""Kills a study from inside, at a file: loaded by every Python process whose PYTHONPATH begins with this folder.

The environment's NTKSIM_TEST_KILL is JSON: a file that ends in ``file`` is about to take its place; ``when`` is half (of it is
written) or done (it has just taken its place); ``whom`` is group, main (the study's own process alone), job (this one), or error:
the job is not killed, but has an error of the system.
Or it is a list of such, each with a ``mark``, a file that is made when it happens, so that it happens once; ``whom`` may then
be memory (this job takes more and more of it), or nobody: it stands still until somebody kills it.
No clock is involved, so that a machine that stands still for a minute changes nothing.
"""

import json
import os
import signal

_plans = json.loads(os.environ.get("NTKSIM_TEST_KILL", "[]"))
_plans = [_plans] if isinstance(_plans, dict) else _plans
_replace = os.replace


def _happens(plan):
    """Whether it has not happened yet; from now on it has."""
    if "mark" not in plan:
        return True
    try:
        os.close(os.open(plan["mark"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _kill(whom):
    if whom == "group":
        os.killpg(os.getpgid(0), signal.SIGKILL)
    elif whom == "main":
        os.kill(os.getsid(0), signal.SIGKILL)
        signal.pause()  # this job and its Snakemake are orphans now, which the next run has to end
    elif whom == "memory":
        held = []
        while True:
            held.append(b"\1" * 2**26 if len(held) < 64 else signal.pause())  # 4 GiB at most
    elif whom == "error":
        raise OSError("the file system has gone away")
    elif whom == "nobody":
        signal.pause()
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def _replace_or_die(source, target, **options):
    plan = next((plan for plan in _plans if str(target).endswith(plan["file"]) and _happens(plan)), None)
    if plan and plan["when"] == "half":
        os.truncate(source, os.path.getsize(source) // 2)
        _kill(plan["whom"])
    done = _replace(source, target, **options)
    if plan and plan["when"] == "done":
        _kill(plan["whom"])
    return done


if _plans:
    os.replace = _replace_or_die
