"""`python -m tf_detreg` is the command `tf-detreg`."""

from tf_detreg.cli import main

if __name__ == "__main__":
    main()
