import io

from devstack.printer import Printer


def test_lines_carry_the_name_of_their_program_and_are_aligned() -> None:
    output = io.StringIO()
    printer = Printer(output, ["web", "worker"], colored=False)

    printer.say("web", "hello")
    printer.say("worker", "")

    assert output.getvalue() == "web    | hello\nworker | \n"


def test_on_a_terminal_each_name_has_its_color_and_the_line_has_none() -> None:
    output = io.StringIO()
    printer = Printer(output, ["web", "worker"], colored=True)

    printer.say("web", "one")
    printer.say("worker", "two")

    first, second = output.getvalue().splitlines()
    assert first.startswith("\033[")
    assert first.endswith("web    |\033[0m one")
    assert first.split("m", 1)[0] != second.split("m", 1)[0]


def test_a_line_is_out_before_the_next_one_comes() -> None:
    class Buffered(io.StringIO):
        flushed = ""

        def flush(self) -> None:
            self.flushed = self.getvalue()

    output = Buffered()

    Printer(output, ["web"], colored=False).say("web", "now")

    assert output.flushed == "web | now\n"
