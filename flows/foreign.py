"""Variables that no process of a run is given: a commit decides what code runs, not who starts it and where."""

from fnmatch import fnmatchcase

FOREIGN = {  # by pattern, and why
    "PYTHON*": "where Python imports from, what it runs at its start and end, what becomes of warnings and asserts",
    "__PYVENV_LAUNCHER__": "which Python it is",
    "LD_PRELOAD": "code in every process; what CUDA needs is found by LD_LIBRARY_PATH, which stays",
    "LD_AUDIT": "the same",
    "DYLD_INSERT_LIBRARIES": "the same on a Mac",
    "BASH_ENV": "a script that the shell of a stage runs first",
    "BASH_FUNC_*": "functions of that shell, which can have the name of a program",
    "ENV": "a script, of other shells",
    "ZDOTDIR": "scripts, of zsh",
    "GIT_*": "on which repository, index and objects git works: set inside a hook, and meant for another one",
    "DVC_ROOT": "the same for DVC, inside a stage of another repository",
    "DVC_STAGE": "the same",
    "DVC_EXP_*": "the same, inside an experiment",
}
OWN_GIT = (  # of these the ones by which a person is known, and reaches origin
    "GIT_AUTHOR_[NE]*",
    "GIT_COMMITTER_[NE]*",
    "GIT_CONFIG_*[!S]",  # not GIT_CONFIG_PARAMETERS, which is for one command
    "GIT_SSH*",
    "GIT_ASKPASS",
    "GIT_SSL_*",
    "GIT_HTTP_*",
    "GIT_PROXY_*",
    "GIT_EXEC_PATH",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "GIT_TEST_ASSUME_DIFFERENT_OWNER",  # a checkout of somebody else's, as tests have it
)


def is_foreign(variable: str) -> bool:
    """Whether no process of a run is given a variable of this name."""
    return any(fnmatchcase(variable, pattern) for pattern in FOREIGN) and not any(
        fnmatchcase(variable, pattern) for pattern in OWN_GIT
    )
