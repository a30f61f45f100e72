"""Places and the report."""

from __future__ import annotations

from proxy.config.problems import ConfigError, Items, Place, Problem, Report, Table, locate, path_text


def document() -> Table:
    """`servers: {a: {url: ...}}` on lines 1 to 3 and `routes: [...]` on lines 4 and 5."""
    root, servers, server, routes = Table(), Table(), Table(), Items()
    for table, key, value, line in ((root, "servers", servers, 1), (servers, "a", server, 2), (server, "url", "x", 3)):
        table[key] = value
        table.places[key] = Place(line, line)
    root["routes"], root.places["routes"] = routes, Place(4, 1)
    routes.append("r")
    routes.places.append(Place(5, 5))
    return root


def test_a_location_is_found_as_far_as_it_exists() -> None:
    """A required key that is missing keeps its name and takes the place of what lacks it."""
    root = document()
    assert locate(root, ("servers", "a", "url")) == (("servers", "a", "url"), Place(3, 3))
    assert locate(root, ("servers", "a", "pool")) == (("servers", "a", "pool"), Place(2, 2))
    assert locate(root, ("servers", "b", "pool")) == (("servers",), Place(1, 1))
    assert locate(root, ("servers", "a", "[key]")) == (("servers", "a"), Place(2, 2))
    assert locate(root, ("routes", 0, "name")) == (("routes", 0), Place(5, 5))
    assert locate(root, ("routes", 1)) == (("routes",), Place(4, 1))
    assert locate(root, ()) == ((), Place(1, 1))


def test_a_path_reads_like_the_file() -> None:
    """Keys that are not plain are quoted and cut, so that no path can break a line."""
    assert path_text(("servers", "a.b", "url")) == "servers.a.b.url"
    assert path_text(("routes", 3, "when", "tool", 0)) == "routes[3].when.tool[0]"
    assert path_text(("a\nb", "c")) == '"a\\nb".c'
    assert len(path_text(("x" * 1000,))) < 80


def test_the_first_complaint_about_a_place_is_the_only_one() -> None:
    """What is inside or the same follows from it; a neighbour does not."""
    report = Report("f")
    root = document()
    report.add(Place(2, 2), ("servers", "a"), "first")
    report.add(Place(2, 2), ("servers", "a"), "again")
    report.add_at(root, ("servers", "a", "url"), "inside")
    report.add_at(root, ("routes", 0), "elsewhere")
    assert [problem.message for problem in report.problems()] == ["first", "elsewhere"]


def test_problems_come_in_the_order_of_the_file() -> None:
    """Whichever check found them."""
    report = Report("f")
    assert not report
    for line in (3, 1, 2):
        report.add(Place(line, 1), (str(line),), "x")
    assert report
    assert [problem.line for problem in report.problems()] == [1, 2, 3]


def test_an_error_reads_as_its_problems() -> None:
    """One line each."""
    error = ConfigError((Problem("f", 1, 2, "a", "x"), Problem("f", 0, 0, "", "y"), Problem("f", 3, 1, "", "z")))
    assert str(error) == "f:1: a: x\nf: y\nf:3: z"
    assert error.files == ()
