"""The form of a site. Lists take one entry per line; networks and origins are validated and normalized."""

from ipaddress import ip_network
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from core.admin_ui import theme
from tenants.access import normalize_origin
from tenants.credentials import SLUG_PATTERN
from tenants.models import Site

MAX_LIST_ENTRIES = 100
#: A hundred years.
MAX_RETENTION_DAYS = 36_500


class LineListField(forms.CharField):
    """A list, one entry per line."""

    def __init__(self, *, label: str, help_text: str) -> None:
        super().__init__(label=label, help_text=help_text, required=False, widget=theme.Textarea({"rows": 4}))

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value) or ""
        found = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
        if len(found) > MAX_LIST_ENTRIES:
            raise ValidationError(f"At most {MAX_LIST_ENTRIES} entries.")
        return found

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool((initial or []) != self.to_python(data))
        except ValidationError:
            return True


class SiteForm(forms.ModelForm):  # type: ignore[type-arg] # generic in the stubs only
    ip_allowlist = LineListField(
        label="IP allowlist",
        help_text="Networks, one per line, such as 203.0.113.0/24. Empty: requests may come from any address.",
    )
    origins = LineListField(
        label="Origins",
        help_text="One per line, such as https://example.com. Empty: requests from browsers are rejected.",
    )
    allowed_models = LineListField(
        label="Allowed models", help_text="One per line. Empty: every model that has a route."
    )

    max_running_jobs = forms.IntegerField(
        label="Max concurrent jobs",
        required=False,
        min_value=1,
        widget=theme.NumberInput(),
        help_text="How many jobs of this site may run at the same time. Empty: no limit.",
    )
    retention_days = forms.IntegerField(
        label="Retention of prompts and answers (days)",
        required=False,
        min_value=0,
        max_value=MAX_RETENTION_DAYS,
        widget=theme.NumberInput(),
        help_text="Days after a job finishes until its prompt and answer are erased. Usage events are kept. "
        "0: never erased. Empty: JOB_RETENTION_DAYS.",
    )

    class Meta:
        model = Site
        fields = (
            "name",
            "slug",
            "is_active",
            "ip_allowlist",
            "origins",
            "allowed_models",
            "accepts_legacy_signature",
            "max_running_jobs",
            "retention_days",
        )

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if not SLUG_PATTERN.fullmatch(slug):
            raise ValidationError("Use lowercase letters, digits and single hyphens, such as corner-bakery.")
        return slug

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not name.isprintable():
            raise ValidationError("Use printable characters only.")
        return name

    def clean_ip_allowlist(self) -> list[str]:
        return [_to_network(entry) for entry in self.cleaned_data["ip_allowlist"]]

    def clean_origins(self) -> list[str]:
        return [_to_origin(entry) for entry in self.cleaned_data["origins"]]

    def clean_allowed_models(self) -> list[str]:
        models: list[str] = self.cleaned_data["allowed_models"]
        if too_long := [model for model in models if len(model) > 200]:
            raise ValidationError(f"A model name has at most 200 characters: {too_long[0][:40]}…")
        return models


def _to_network(entry: str) -> str:
    try:
        return str(ip_network(entry, strict=False))
    except ValueError as error:
        raise ValidationError(f"Not an IP address or network: {entry[:60]}") from error


def _to_origin(entry: str) -> str:
    origin = normalize_origin(entry)
    if not origin or len(origin) > 255:
        raise ValidationError(f"Not an origin such as https://example.com: {entry[:60]}")
    return origin
