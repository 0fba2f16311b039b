"""A pytest plugin that notes how long each test took and whether it passed."""

import json
import os


class Durations:
    """Collects the reports of all workers and writes them to `$TEST_DURATIONS` as `{test: seconds}`."""

    def __init__(self, path: str):
        self.path, self.seconds, self.unusable = path, {}, set()

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if not report.passed:
            self.unusable.add(report.nodeid)

    def pytest_sessionfinish(self):
        passed = {test: seconds for test, seconds in self.seconds.items() if test not in self.unusable}
        with open(self.path, "w", encoding="utf-8") as file:
            json.dump(passed, file)


def pytest_configure(config):
    if not hasattr(config, "workerinput") and "TEST_DURATIONS" in os.environ:
        config.pluginmanager.register(Durations(os.environ["TEST_DURATIONS"]))
