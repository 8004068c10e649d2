"""Errors of a request that no provider can be called for. (Errors of a call are in `providers.errors`.)

* InferenceError
  + UnknownModel     no route and no provider serves a model of that name
  + NoProviderKey    there are targets, but none has a key
  + RequestTooLong   the request is longer than the model, or Nightdesk, accepts; carries `param`
"""


class InferenceError(Exception): ...


class UnknownModel(InferenceError):
    def __init__(self, model: str) -> None:
        super().__init__(f"The model `{model[:200]}` does not exist, or no provider serves it.")
        self.model = model


class NoProviderKey(InferenceError):
    def __init__(self, model: str, providers: list[str]) -> None:
        super().__init__(
            f"No provider that serves `{model[:200]}` has an API key. "
            f"An operator must set one for: {', '.join(sorted(set(providers)))}."
        )


class RequestTooLong(InferenceError):
    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param
