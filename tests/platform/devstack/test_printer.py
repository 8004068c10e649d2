import io

from devstack.printer import Printer


def test_lines_are_prefixed_with_their_program_and_aligned() -> None:
    output = io.StringIO()
    printer = Printer(output, ["web", "worker"], colored=False)

    printer.say("web", "hello")
    printer.say("worker", "")

    assert output.getvalue() == "web    | hello\nworker | \n"


def test_only_the_prefix_is_colored() -> None:
    output = io.StringIO()
    printer = Printer(output, ["web", "worker"], colored=True)

    printer.say("web", "one")
    printer.say("worker", "two")

    first, second = output.getvalue().splitlines()
    assert first.startswith("\033[")
    assert first.endswith("web    |\033[0m one")
    assert first.split("m", 1)[0] != second.split("m", 1)[0]


def test_each_line_is_flushed() -> None:
    class Buffered(io.StringIO):
        flushed = ""

        def flush(self) -> None:
            self.flushed = self.getvalue()

    output = Buffered()

    Printer(output, ["web"], colored=False).say("web", "now")

    assert output.flushed == "web | now\n"
