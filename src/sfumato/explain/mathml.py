r"""Formulae: a subset of LaTeX as MathML, which browsers draw without a font or a script of ours.

Read are letters, numbers, operators, `^` and `_`, `{...}`, \frac{}{}, \sqrt{}, \bar \tilde \hat, \mathcal, \mathrm,
\text, \left \right, Greek letters, the relations in `_SYMBOLS`, `&` and `\\` between \begin{aligned} and \end{aligned}.
Anything else is an error, so a mistake in a text is found when the page is made.
"""

from __future__ import annotations

import re
from html import escape

_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "theta": "θ", "lambda": "λ", "mu": "μ",
    "pi": "π", "sigma": "σ", "phi": "φ", "eta": "η", "omega": "ω", "tau": "τ", "rho": "ρ", "Sigma": "Σ", "Delta": "Δ",
    "Phi": "Φ",
}  # fmt: skip
_SYMBOLS = {
    "sim": "∼", "propto": "∝", "le": "≤", "ge": "≥", "ne": "≠", "approx": "≈", "cdot": "·", "times": "×", "to": "→",
    "infty": "∞", "mid": "|", "pm": "±", "ldots": "…", "cdots": "⋯", "in": "∈", "nabla": "∇", "partial": "∂",
    "Vert": "‖", "gets": "←",
}  # fmt: skip
_SPACES = {",": 0.25, ";": 0.35, " ": 0.3, "quad": 1.0}
_LARGE = {"sum": "∑", "prod": "∏", "int": "∫"}
_NAMES = ("log", "exp", "sin", "cos", "min", "max", "det", "tr")
_ACCENTS = {"bar": "¯", "tilde": "~", "hat": "^"}
_TOKEN = re.compile(r"\\(?:[A-Za-z]+|\\|[,;|{}% ])|\d+(?:[.,]\d+)*|[A-Za-z]|\s+|.", re.DOTALL)


def mathml(latex: str, block: bool = False) -> str:
    """Return a formula as MathML, with the LaTeX as its text alternative; raises ValueError for what is not in the
    subset."""
    parser = _Parser(_TOKEN.findall(latex), latex)
    inner = parser.row(())
    display = " display='block'" if block else ""
    return f"<math{display} alttext='{escape(latex, quote=True)}'><mrow>{inner}</mrow></math>"


class _Parser:
    """A recursive descent over the tokens."""

    def __init__(self, tokens: list[str], latex: str) -> None:
        self.tokens, self.latex, self.at = tokens, latex, 0

    def fail(self, what: str) -> ValueError:
        return ValueError(f"{what} in the formula {self.latex}")

    def peek(self) -> str:
        while self.at < len(self.tokens) and self.tokens[self.at].isspace():
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        if not token:
            raise self.fail("something is missing at the end")
        self.at += 1
        return token

    def row(self, ends: tuple[str, ...]) -> str:
        """Read up to one of the tokens, or to the end."""
        parts = []
        while (token := self.peek()) not in ends:
            if not token:
                if ends:
                    raise self.fail(f"{ends[0]} is missing")
                break
            parts.append(self.scripted())
        return "".join(parts)

    def scripted(self) -> str:
        """Read an atom and its exponents and indices."""
        large = self.peek().lstrip("\\") in _LARGE
        base, scripts = self.atom(), {}
        while self.peek() in ("^", "_"):
            kind = self.next()
            scripts[kind] = self.group()
        if not scripts:
            return base
        both = len(scripts) == 2
        if large:
            tag = "munderover" if both else "munder" if "_" in scripts else "mover"
        else:
            tag = "msubsup" if both else "msub" if "_" in scripts else "msup"
        return f"<{tag}>{base}{scripts.get('_', '')}{scripts.get('^', '')}</{tag}>"

    def group(self) -> str:
        """Read {...} or one atom."""
        if self.peek() != "{":
            return self.atom()
        self.next()
        inner = self.row(("}",))
        self.next()
        return f"<mrow>{inner}</mrow>"

    def words(self) -> str:
        """Read {...} as text, with its spaces."""
        if self.next() != "{":
            raise self.fail("a { is missing")
        start = self.at
        if "}" not in self.tokens[start:]:
            raise self.fail("a } is missing")
        self.at = self.tokens.index("}", start) + 1
        return escape("".join(self.tokens[start : self.at - 1]))

    def atom(self) -> str:
        token = self.next()
        if token == "{":
            self.at -= 1
            return self.group()
        if token.startswith("\\"):
            return self.command(token[1:])
        if token[0].isdigit():
            return f"<mn>{token}</mn>"
        if token.isalpha():
            return f"<mi>{token}</mi>"
        if token in "+-=()[]|,.:;/*!'<>":
            sign = {"-": "−", "*": "∗", "'": "′"}.get(token, escape(token))
            fixed = " stretchy='false'" if token in "()[]|" else ""
            return f"<mo{fixed}>{sign}</mo>"
        raise self.fail(f"'{token}' is not understood")

    def command(self, name: str) -> str:
        if name in _GREEK:
            return f"<mi>{_GREEK[name]}</mi>"
        if name in _LARGE:
            return f"<mo>{_LARGE[name]}</mo>"
        if name in _NAMES:
            apart = "<mo>&#x2061;</mo>" if self.peek() in ("(", "\\left") else "<mspace width='0.17em'/>"
            return f"<mi>{name}</mi>{apart}" if self.peek() not in ("^", "_") else f"<mi>{name}</mi>"
        if name in ("{", "}", "|", "%"):
            return f"<mo stretchy='false'>{'‖' if name == '|' else name}</mo>"
        if name in _SPACES:
            return f"<mspace width='{_SPACES[name]}em'/>"
        if name in _SYMBOLS:
            return f"<mo>{_SYMBOLS[name]}</mo>"
        if name == "bar" and self.peek().lstrip("\\") in ("alpha", "beta"):
            slanted = {"alpha": "\U0001d6fc", "beta": "\U0001d6fd"}[self.next()[1:]]  # <mi> slants single letters only
            return f"<mi>{slanted}\u0304</mi>"  # one glyph: an accent would be lost below a root
        if name in _ACCENTS:
            return f"<mover accent='true'>{self.group()}<mo stretchy='false'>{_ACCENTS[name]}</mo></mover>"
        if name == "frac":
            return f"<mfrac>{self.group()}{self.group()}</mfrac>"
        if name == "sqrt":
            return f"<msqrt>{self.group()}</msqrt>"
        if name in ("mathcal", "mathrm", "text", "mathbf"):
            return self.styled(name)
        if name == "left":
            return self.fenced()
        if name == "begin":
            return self.aligned()
        raise self.fail(f"\\{name} is not understood")

    def styled(self, name: str) -> str:
        inner = self.words()
        if name == "text":
            return f"<mtext>{inner}</mtext>"
        if name == "mathcal":
            letter = {"N": "𝒩", "L": "ℒ", "U": "𝒰", "E": "ℰ"}.get(inner)
            if letter is None:
                raise self.fail(f"\\mathcal{{{inner}}} is not understood")
            return f"<mi>{letter}</mi>"
        return f"<mi mathvariant='normal'>{inner}</mi>"

    def fenced(self) -> str:
        """Read \\left( ... \\right)."""
        left = self.next()
        left = "‖" if left == "\\|" else left.lstrip("\\")
        inner = self.row(("\\right",))
        self.next()
        right = self.next()
        right = "‖" if right == "\\|" else right.lstrip("\\")
        return f"<mrow><mo>{left}</mo>{inner}<mo>{right}</mo></mrow>"

    def aligned(self) -> str:
        """Read the rows of an aligned block."""
        if self.words() != "aligned":
            raise self.fail("only aligned can begin")
        rows: list[list[str]] = [[]]
        while True:
            cell = self.row(("&", "\\\\", "\\end"))
            rows[-1].append(cell)
            token = self.next()
            if token == "\\\\":
                rows.append([])
            elif token == "\\end":
                self.words()
                break
        sides = ("right", "left")
        cells = (
            "".join(f"<mtd style='text-align:{sides[min(k, 1)]}'>{cell}</mtd>" for k, cell in enumerate(row))
            for row in rows
        )
        return f"<mtable displaystyle='true'>{''.join(f'<mtr>{row}</mtr>' for row in cells)}</mtable>"
