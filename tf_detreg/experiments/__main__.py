"""`python -m tf_detreg.experiments ablate|tune|report`: what `tf-detreg` offers under the same names."""

import argparse

from tf_detreg.experiments import ablate, report, tune


def main() -> None:
    """Parse the command line and call the function of that name."""
    parser = argparse.ArgumentParser(prog="python -m tf_detreg.experiments", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for function in (ablate, tune, report):
        command = commands.add_parser(function.__name__, help=function.__doc__.splitlines()[0])
        command.set_defaults(function=function)
        if function is report:
            command.add_argument("--studies", default="studies", help="folder of study files")
            command.add_argument("--output", default="docs/results.md", help="the page to write")
            command.add_argument("--picture", default=None, help="where the main plot goes, as SVG")
            continue
        command.add_argument("study_file")
        command.add_argument("--output", default="studies/out", help="folder of finished trials")
        command.add_argument("--smoke", action="store_true", help="the small version, in seconds")
        command.add_argument("--jobs", type=int, default=1, help="processes, each on one thread")
        if function is tune:
            command.add_argument("family")
            command.add_argument("--trials", type=int, default=20, help="proposals in this call")
    options = vars(parser.parse_args())
    print(options.pop("function")(**options))


if __name__ == "__main__":
    main()
