"""The benchmarks are started as programs, so their folder comes first where Python looks for modules."""


def test_no_program_hides_a_package(repository):
    packages = {path.parent.name for path in repository.glob("*/__init__.py")}
    assert {"training", "perflow_core", "nodes"} <= packages
    programs = {path.stem for path in (repository / "benchmarks").glob("*.py")}
    assert not programs & packages
