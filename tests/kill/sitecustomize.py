"""Kills a study from inside, at a file: loaded by every Python process whose PYTHONPATH begins with this folder.

The environment's NTKSIM_TEST_KILL is JSON: a file that ends in ``file`` is about to take its place; ``when`` is half (of it is
written) or done (it has just taken its place); ``whom`` is group, main (the study's own process alone) or job (this one).
No clock is involved, so that a machine that stands still for a minute changes nothing.
"""

import json
import os
import signal

_plan = json.loads(os.environ.get("NTKSIM_TEST_KILL", "{}"))
_replace = os.replace


def _kill():
    if _plan["whom"] == "group":
        os.killpg(os.getpgid(0), signal.SIGKILL)
    elif _plan["whom"] == "main":
        os.kill(os.getsid(0), signal.SIGKILL)
        signal.pause()  # this job and its Snakemake are orphans now, which the next run has to end
    else:
        os.kill(os.getpid(), signal.SIGKILL)


def _replace_or_die(source, target, **options):
    if not str(target).endswith(_plan["file"]):
        return _replace(source, target, **options)
    if _plan["when"] == "half":
        os.truncate(source, os.path.getsize(source) // 2)
        _kill()
    done = _replace(source, target, **options)
    if _plan["when"] == "done":
        _kill()
    return done


if _plan:
    os.replace = _replace_or_die
