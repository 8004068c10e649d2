"""The form of a provider. Its API key is write-only: it can be set and removed, never read."""

import re
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django import forms

from core.admin_ui import theme
from inference.models import ProviderAccount
from providers.catalogue import list_models

#: Characters that are safe in an HTTP header; every vendor's keys consist of these.
KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,500}")
HINT_LENGTH = 4
#: The hint would reveal too much of a shorter key.
MIN_HINTED_KEY_LENGTH = 12


def to_key_hint(key: str) -> str:
    """Return the last characters, to tell keys apart; nothing for a short key."""
    return key[-HINT_LENGTH:] if len(key) >= MIN_HINTED_KEY_LENGTH else ""


def vendors() -> list[str]:
    """Return the vendors that have a price list."""
    return sorted({model.vendor for model in list_models()})


def holds_key(provider: ProviderAccount) -> bool:
    """Whether there is a key, as the admin's query annotates it: a lost encryption key makes reading it fail."""
    return bool(getattr(provider, "has_key", False))


class ProviderForm(forms.ModelForm):  # type: ignore[type-arg] # generic in the stubs only
    base_url = forms.URLField(
        label="Base URL",
        max_length=500,
        assume_scheme="https",
        widget=theme.TextInput(),
        help_text="With /v1 for OpenAI-compatible providers, without it for Anthropic.",
    )
    new_key = forms.CharField(
        label="API key",
        required=False,
        max_length=500,
        widget=theme.PasswordInput(attrs={"autocomplete": "off"}),
    )
    max_running_jobs = forms.IntegerField(
        label="Max concurrent jobs",
        required=False,
        min_value=1,
        widget=theme.NumberInput(),
        help_text="How many jobs whose first target is this provider may run at the same time. Empty: no limit.",
    )
    remove_key = forms.BooleanField(label="Remove the key", required=False)

    class Meta:
        model = ProviderAccount
        fields = (
            "name",
            "dialect",
            "base_url",
            "price_list",
            "serves_all_models",
            "api_version",
            "max_running_jobs",
            "is_active",
        )
        help_texts = {
            "name": "Usage events and prices refer to it, so it cannot be changed later.",
            "price_list": "The vendor whose list prices apply, unless a price is set under Prices.",
            "serves_all_models": "Serve every model of the price list under its own name, without a route.",
            "api_version": "Only for Azure's dated API versions.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        hint = f" ending in …{self.instance.key_hint}" if self.instance.key_hint else ""
        self.fields["new_key"].help_text = (
            f"A key{hint} is stored; it cannot be shown. Leave this empty to keep it."
            if holds_key(self.instance)
            else "Stored encrypted; it cannot be shown again."
        )
        self.fields["price_list"] = forms.ChoiceField(
            choices=[("", "None (only the prices set under Prices)"), *((name, name) for name in vendors())],
            help_text=self.Meta.help_texts["price_list"],
            required=False,
            widget=theme.Select(),
        )

    def clean_new_key(self) -> str:
        key = str(self.cleaned_data["new_key"]).strip()
        if key and not KEY_PATTERN.fullmatch(key):
            raise forms.ValidationError("A key consists of ASCII letters, digits and punctuation, without spaces.")
        return key

    def clean_base_url(self) -> str:
        """Return the URL without a trailing slash."""
        text = str(self.cleaned_data["base_url"]).rstrip("/")
        url = _split(text)
        if url is None or url.scheme not in ("http", "https") or not url.hostname:
            raise forms.ValidationError("Enter a URL that begins with https:// (or http://) and a host.")
        if url.username or url.password or url.query or url.fragment:
            raise forms.ValidationError("The URL must not contain a user, password, query or fragment.")
        return text

    def clean(self) -> dict[str, Any]:
        super().clean()
        key, remove = self.cleaned_data.get("new_key"), self.cleaned_data.get("remove_key")
        if key and remove:
            self.add_error("remove_key", "Enter a new key or remove the old one, not both.")
        if holds_key(self.instance) and not key and not remove and self._changes_origin():
            self.add_error(
                "new_key",
                "The URL has another host. Enter the API key for that host: the stored key is never sent to a host "
                "that it was not entered for.",
            )
        return self.cleaned_data

    def _changes_origin(self) -> bool:
        old, new = _split(str(self.initial.get("base_url", ""))), _split(str(self.cleaned_data.get("base_url", "")))
        return old is None or new is None or _origin(old) != _origin(new)

    def save(self, commit: bool = True) -> Any:
        key = self.cleaned_data["new_key"]
        if key:
            self.instance.api_key, self.instance.key_hint = key.encode(), to_key_hint(key)
        elif self.cleaned_data.get("remove_key"):
            self.instance.api_key, self.instance.key_hint = None, ""
        return super().save(commit)


def _split(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        # Reading the port raises ValueError if it is invalid.
        return url if url.port is None or url.port else None
    except ValueError:
        return None


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port
