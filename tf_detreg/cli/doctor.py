"""`doctor`: what a bug report should contain."""

from tf_detreg.cli.app import app


@app.command()
def doctor() -> None:
    """Print what a bug report should contain: versions, what is missing or does not work together, GPUs, caches."""
    from tf_detreg.doctor import main

    main()
