"""What pyproject.toml has no words for: the workflow lies beside the package in the repository, and inside it once installed."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROJECT = ["Snakefile", "config.yaml", "constraints.txt", *sorted(map(str, filter(Path.is_file, Path("workflow").rglob("*"))))]


class BuildWithWorkflow(build_py):
    """Copies the files of PROJECT to ntksim/project. An editable install reads them where they are (ntksim/study/project.py)."""

    def _project(self):
        folder = Path(self.build_lib, "ntksim", "project")
        return {str(folder / name): name for name in PROJECT}

    def run(self):
        if not self.editable_mode:
            # Modules that an earlier build left would be shipped, and counted in the digest of the source.
            shutil.rmtree(Path(self.build_lib, "ntksim"), ignore_errors=True)
        super().run()
        if not self.editable_mode:
            for target, source in self._project().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(source, target)

    def get_output_mapping(self):
        return super().get_output_mapping() | self._project()


setup(cmdclass={"build_py": BuildWithWorkflow})
