"""A drawing of 800 x 600 with axes, for the plots."""

from PIL import Image, ImageDraw, ImageFont

SIZE = (800, 600)  # with letters of this size it reads at half the width, as on a node
LETTERS = 26
OVERSAMPLING = 2  # Pillow's lines have hard edges: draw large, then shrink
LEFT, TOP, RIGHT, BOTTOM = 90, 110, 770, 494  # of the field between the axes
PAPER, INK, FAINT = "#ffffff", "#1f2430", "#5b6472"


class Canvas:
    """Pillow drawing in the coordinates of the finished picture."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (SIZE[0] * OVERSAMPLING, SIZE[1] * OVERSAMPLING), PAPER)
        self.pen = ImageDraw.Draw(self.image)

    def line(self, points: list[tuple[float, float]], colour: str, width: float) -> None:
        scaled = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
        self.pen.line(scaled, colour, round(width * OVERSAMPLING), joint="curve")

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        self.pen.rectangle([value * OVERSAMPLING for value in (x0, y0, x1, y1)], colour)

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        corners = [value * OVERSAMPLING for value in (x - radius, y - radius, x + radius, y + radius)]
        self.pen.ellipse(corners, colour, PAPER, 2 * OVERSAMPLING)

    def text(self, x: float, y: float, text: str, anchor: str = "mm", colour: str = INK) -> None:
        font = ImageFont.load_default(LETTERS * OVERSAMPLING)
        self.pen.text((x * OVERSAMPLING, y * OVERSAMPLING), text, colour, font, anchor)

    def axes(self, name: str) -> None:
        """The left and the lower axis, and the name of the lower one."""
        self.line([(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)], FAINT, 1.5)
        self.text((LEFT + RIGHT) / 2, BOTTOM + 72, name)

    def tick_left(self, y: float, label: str) -> None:
        self.line([(LEFT - 8, y), (LEFT, y)], FAINT, 1.5)
        self.text(LEFT - 14, y, label, "rm", FAINT)

    def tick_below(self, x: float, label: str) -> None:
        self.line([(x, BOTTOM), (x, BOTTOM + 8)], FAINT, 1.5)
        self.text(x, BOTTOM + 28, label, colour=FAINT)

    def finished(self) -> Image.Image:
        return self.image.resize(SIZE, Image.Resampling.LANCZOS)
