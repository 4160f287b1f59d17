# A build backend that builds nothing. `pip download` asks a source package for its metadata, which
# would otherwise compile half of it; this answers from the package's own PKG-INFO.
import pathlib


def prepare_metadata_for_build_wheel(directory, config_settings=None):
    lines = pathlib.Path("PKG-INFO").read_text(encoding="utf-8").splitlines()
    fields = {k: v for k, _, v in (line.partition(": ") for line in lines) if k in ("Name", "Version")}
    name = "{}-{}.dist-info".format(fields["Name"].replace("-", "_"), fields["Version"])
    folder = pathlib.Path(directory, name)
    folder.mkdir()
    folder.joinpath("METADATA").write_text(
        "Metadata-Version: 2.1\nName: {Name}\nVersion: {Version}\n".format(**fields))
    folder.joinpath("WHEEL").write_text("Wheel-Version: 1.0\n")
    return name


def build_wheel(*args, **kwargs):
    raise RuntimeError("scripts/setup only downloads; it never builds a package.")
