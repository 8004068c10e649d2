"""Form of a price override: rates in USD per million tokens, as price lists print them, stored exactly."""

from decimal import Decimal
from typing import Any

from django import forms

from core import clock
from core.admin_ui import theme
from metering.models import Price

MICRO_PER_USD = 1_000_000

#: Form fields and their columns.
RATE_COLUMNS = {
    "input_usd": "input_rate",
    "cached_input_usd": "cached_input_rate",
    "cache_write_usd": "cache_write_rate",
    "cache_write_1h_usd": "cache_write_1h_rate",
    "output_usd": "output_rate",
}


def to_micro(usd: Decimal) -> int:
    """Convert USD with at most six decimals to micro-USD: always a whole number, so nothing is rounded."""
    return int(usd * MICRO_PER_USD)


def to_usd_per_million(rate: int | None) -> Decimal | None:
    """Convert micro-USD to USD, without trailing zeros."""
    if rate is None:
        return None
    usd = (Decimal(rate) / MICRO_PER_USD).normalize()
    # `normalize` writes 100 as 1E+2.
    return usd.quantize(Decimal(1)) if usd == usd.to_integral() else usd


def _usd_field(label: str, help_text: str = "", *, required: bool = False) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        help_text=help_text,
        required=required,
        min_value=Decimal(0),
        max_value=Decimal(100_000),
        decimal_places=6,
        widget=theme.NumberInput(attrs={"step": "any", "inputmode": "decimal"}),
    )


class PriceForm(forms.ModelForm):  # type: ignore[type-arg] # generic in the stubs only
    input_usd = _usd_field("Input", required=True)
    cached_input_usd = _usd_field("Cached input", "Empty: same as input")
    cache_write_usd = _usd_field("Cache write", "Empty: same as input")
    cache_write_1h_usd = _usd_field("Cache write, 1 h", "Empty: same as cache write")
    output_usd = _usd_field("Output", "0 for embeddings", required=True)

    class Meta:
        model = Price
        fields = ("provider", "model", "effective_at")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "effective_at" not in self.fields:
            return  # The form is read only.
        self.fields["effective_at"].required = False
        self.fields["effective_at"].help_text = "UTC. Leave empty to start now."
        for name, column in RATE_COLUMNS.items():
            self.initial.setdefault(name, to_usd_per_million(getattr(self.instance, column)))

    def clean_effective_at(self) -> Any:
        """Reject a start in the past: the price of calls already made must not change."""
        effective_at, now = self.cleaned_data["effective_at"], clock.now()
        if effective_at is not None and effective_at <= now:
            raise forms.ValidationError("A price cannot start in the past. Leave this empty to start now.")
        return effective_at or now

    def clean(self) -> dict[str, Any]:
        super().clean()
        # Set before the instance is validated, so that the database constraints are checked with the new rates.
        for name, column in RATE_COLUMNS.items():
            usd = self.cleaned_data.get(name)
            setattr(self.instance, column, None if usd is None else to_micro(usd))
        return self.cleaned_data
