"""A trained net for use elsewhere; needs the extra packages of `pip install -e '.[deploy]'`."""
