"""Entering a provider. Its key goes in and never comes out again."""

import re
from typing import Any
from urllib.parse import SplitResult, urlsplit

from django import forms

from core.admin_ui import theme
from inference.models import ProviderAccount
from providers.catalogue import list_models

#: What can stand in an HTTP header without being misread; no vendor's key has anything else.
KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,500}")
HINT_LENGTH = 4
#: Shorter keys would be half told by their hint.
MIN_HINTED_KEY_LENGTH = 12


def to_key_hint(key: str) -> str:
    """Return the last characters, to tell keys apart; none of a key too short to spare them."""
    return key[-HINT_LENGTH:] if len(key) >= MIN_HINTED_KEY_LENGTH else ""


def vendors() -> list[str]:
    """Return whose price lists there are."""
    return sorted({model.vendor for model in list_models()})


def holds_key(provider: ProviderAccount) -> bool:
    """Whether there is a key. The admin's query says so, for a key whose encryption key is lost cannot be looked at."""
    return bool(getattr(provider, "has_key", False))


class ProviderForm(forms.ModelForm):  # type: ignore[type-arg] # generic in the stubs only
    base_url = forms.URLField(
        label="Base URL",
        max_length=500,
        assume_scheme="https",
        widget=theme.TextInput(),
        help_text="With /v1 where OpenAI's wire is spoken, without for Anthropic's.",
    )
    new_key = forms.CharField(
        label="API key",
        required=False,
        max_length=500,
        widget=theme.PasswordInput(attrs={"autocomplete": "off"}),
    )
    max_running_jobs = forms.IntegerField(
        label="Concurrent jobs",
        required=False,
        min_value=1,
        widget=theme.NumberInput(),
        help_text="How many jobs with this provider as their first target may run at once. Empty: no limit.",
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
        labels = {"api_version": "API version"}
        help_texts = {
            "name": "Usage events and prices know the provider by it, so it cannot be changed later.",
            "price_list": "Whose prices its calls are rated with, unless this desk has its own.",
            "serves_all_models": "Serve every model of the price list by the model's own name, without a route.",
            "api_version": "Only for Azure's dated surface.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        hint = f" It ends in …{self.instance.key_hint}." if self.instance.key_hint else ""
        self.fields["new_key"].help_text = (
            f"There is a key.{hint} It cannot be read again; leave this empty to keep it."
            if holds_key(self.instance)
            else "Kept encrypted. It cannot be read again."
        )
        self.fields["price_list"] = forms.ChoiceField(
            choices=[("", "None: only this desk's own prices"), *((name, name) for name in vendors())],
            help_text=self.Meta.help_texts["price_list"],
            required=False,
            widget=theme.Select(),
        )

    def clean_new_key(self) -> str:
        key = str(self.cleaned_data["new_key"]).strip()
        if key and not KEY_PATTERN.fullmatch(key):
            raise forms.ValidationError("A key has no spaces and only plain letters, digits and signs.")
        return key

    def clean_base_url(self) -> str:
        """Return the address without a slash at its end."""
        text = str(self.cleaned_data["base_url"]).rstrip("/")
        url = _split(text)
        if url is None or url.scheme not in ("http", "https") or not url.hostname:
            raise forms.ValidationError("The address begins with https:// (or http://) and a host.")
        if url.username or url.password or url.query or url.fragment:
            raise forms.ValidationError("The address holds no user, password, query or fragment.")
        return text

    def clean(self) -> dict[str, Any]:
        super().clean()
        key, remove = self.cleaned_data.get("new_key"), self.cleaned_data.get("remove_key")
        if key and remove:
            self.add_error("remove_key", "Enter a new key, or remove the old one.")
        if holds_key(self.instance) and not key and not remove and self._changes_origin():
            self.add_error(
                "new_key",
                "The address names another host. Enter the key that host shall get: the old one was entrusted to "
                "the old host only.",
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
        # Asking for the port is what finds a bad one.
        return url if url.port is None or url.port else None
    except ValueError:
        return None


def _origin(url: SplitResult) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port
