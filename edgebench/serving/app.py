"""The endpoints: what is asked and what is answered, as the OpenAPI document at /openapi.json has it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, HTTPException, Query, Request, Response, UploadFile
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.cors import CORSMiddleware

from edgebench import __version__
from edgebench.data._images import NoImage, TooManyPixels
from edgebench.errors import EdgebenchError, ExportError, InputError, written
from edgebench.serving.batching import Busy
from edgebench.serving.explained import Asked, by_scores, checked
from edgebench.serving.limits import Limits
from edgebench.serving.model import Inferred
from edgebench.serving.options import ServeOptions
from edgebench.serving.page import page
from edgebench.serving.service import Service

BUSY: dict[int | str, dict[str, Any]] = {503: {"description": "busy; try again after Retry-After seconds"}}
REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"description": "the form is damaged"},
    401: {"description": "without the API key"},
    408: {"description": "the request did not come in in time"},
    413: {"description": "too many bytes, pixels or files"},
    415: {"description": "no multipart form, or no picture of a format that is read"},
    429: {"description": "this client asks for too much at once"},
    **BUSY,
}


class Answer(BaseModel):
    """What is answered; no name in it is pydantic's."""

    model_config = ConfigDict(protected_namespaces=())


class Health(Answer):
    """Whether it works."""

    status: str = Field(description="ok, loading, failing (inferences fail) or stuck (one does not end)")
    model_loaded: bool
    device: str
    model_version: str


class Prediction(Answer):
    """What the model says of one picture."""

    prediction: str | list[str] = Field(description="the class; of a multi-label model, the labels that are held to be there")
    confidence: float = Field(description="how likely it is held; of labels, the least sure decision")
    probabilities: dict[str, float]
    inference_time_ms: float = Field(description="of the inference, with all pictures that were in it")
    model_version: str
    features: dict[str, list[float]] | None = Field(None, description="where asked for: every output of the file, as it gives it")


class Predictions(Answer):
    """What the model says of several pictures."""

    predictions: list[Prediction] = Field(description="in the order of the files")
    count: int
    model_version: str


class Explanation(Answer):
    """What a score depends on."""

    method: str
    explained_class: str
    map: list[list[float]] = Field(description="rows of cells: above 0 a cell speaks for the class, below against it")
    prediction: str | list[str]
    confidence: float
    probabilities: dict[str, float]
    picture_png: str = Field(description="what the network sees, in base64; the map lies over it")
    heat_map_png: str = Field(description="the map over it, in base64: red speaks for the class, blue against it")
    inferences: int
    seconds: float
    model_version: str


Features = Annotated[bool, Query(description="Every output of the file, too.")]
FeaturesField = Annotated[bool, Form(alias="return_features", description="The same, as a field of the form.")]


def make_app(folder: Path, options: ServeOptions) -> FastAPI:
    """Load the model and make the application; `ExportError` where the file does not run here."""
    service = Service(folder, options)
    service.load()

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(title="edgebench serve", version=__version__, lifespan=life, docs_url=None, redoc_url=None)
    _add_facts(app, service)
    _add_predictions(app, service)
    _add_explanation(app, service)
    _add_errors(app)
    paths = frozenset(str(path) for each in app.routes if (path := getattr(each, "path", None)))
    layers: dict[str, Any] = {"full": lambda: service.gate.full, "answered": service.metrics.answered}
    app.add_middleware(Limits, options=options, paths=paths, **layers)
    if options.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["X-API-Key", "Authorization"],
        )
    return app


def _add_facts(app: FastAPI, service: Service) -> None:
    shown = page()

    @app.get("/", include_in_schema=False)
    async def show() -> Response:
        return Response(shown.content, media_type="text/html", headers={"content-security-policy": shown.policy})

    @app.get("/health", responses={503: {"model": Health}})
    async def health(response: Response) -> Health:
        """Say whether it works; 503 where it does not."""
        response.status_code = 200 if service.status == "ok" else 503
        return Health(
            status=service.status,
            model_loaded=service.loaded,
            device=service.device,
            model_version=service.model.version,
        )

    @app.get("/model/info")
    async def model_info() -> dict[str, Any]:
        """Tell what is served: model, file, input, what it was made of, and the limits of this server."""
        return info(service)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Tell Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def info(service: Service) -> dict[str, Any]:
    """Describe what is served."""
    bundle, options = service.model.bundle, service.options
    model = bundle.model
    return {
        "name": bundle.name,
        "model_version": service.model.version,
        "bundle_sha256": bundle.sha256,
        "architecture": model.architecture,
        "task": model.task,
        "classes": list(model.classes),
        "format": bundle.format,
        "precision": bundle.precision,
        "runtime": bundle.runtime,
        "runtime_version": service.runtime_version,
        "device": service.device,
        "parameters": model.parameters,
        "macs": bundle.macs,
        "size_bytes": bundle.size_bytes,
        "input": bundle.inputs[0].model_dump(mode="json"),
        "outputs": [each.model_dump(mode="json") for each in bundle.outputs],
        "scores": service.model.head,
        "temperature": None if bundle.temperature is None else bundle.temperature.value,
        "dataset": None if model.lineage.dataset is None else model.lineage.dataset.name,
        "parity": None if bundle.parity is None else bundle.parity.model_dump(mode="json"),
        "explained_by": list(by_scores()),
        "limits": {
            "bytes": options.max_bytes,
            "pixels": options.max_pixels,
            "files": options.max_files,
            "pictures_at_once": options.queue,
            "batch": service.model.most,
            "batch_wait_ms": options.wait_ms if service.model.most > 1 else 0.0,
            "seconds": options.timeout_seconds,
        },
    }


def _add_predictions(app: FastAPI, service: Service) -> None:
    @app.post("/predict", responses=REFUSED, response_model_exclude_none=True)
    async def predict(
        file: Annotated[UploadFile, File(description="A picture.")],
        return_features: Features = False,
        form_features: FeaturesField = False,
    ) -> Prediction:
        """Say what the model makes of one picture."""
        [found] = await service.predict([await file.read()])
        return _prediction(service, found, return_features or form_features)

    @app.post("/predict/batch", responses=REFUSED, response_model_exclude_none=True)
    async def predict_batch(
        files: Annotated[list[UploadFile], File(description="Pictures; where one is refused, all are.")],
        return_features: Features = False,
        form_features: FeaturesField = False,
    ) -> Predictions:
        """Say what the model makes of several pictures."""
        most = min(service.options.max_files, service.options.queue)
        if len(files) > most:
            raise HTTPException(413, f"{len(files)} files, and a request may have {most}")
        found = await service.predict([await each.read() for each in files])
        said = [_prediction(service, each, return_features or form_features) for each in found]
        return Predictions(predictions=said, count=len(said), model_version=service.model.version)


def _prediction(service: Service, found: Inferred, features: bool) -> Prediction:
    decision = service.model.decision(found.outputs)
    return Prediction(
        prediction=decision.prediction,
        confidence=decision.confidence,
        probabilities=decision.probabilities,
        inference_time_ms=round(found.seconds * 1e3, 3),
        model_version=service.model.version,
        features={name: each.ravel().tolist() for name, each in found.outputs.items()} if features else None,
    )


def _add_explanation(app: FastAPI, service: Service) -> None:
    @app.post("/explain", responses=REFUSED)
    async def explain(
        file: Annotated[UploadFile, File(description="A picture.")],
        method: Annotated[str, Form(description="occlusion, lime or kernel-shap.")] = "occlusion",
        explained_class: Annotated[str | None, Form(description="The decided one unless given.")] = None,
        cells: Annotated[int, Form(description="Rows and columns that the picture is divided into.")] = 8,
        baseline: Annotated[str, Form(description="What covers a cell: mean, black or blur.")] = "mean",
        evaluations: Annotated[int | None, Form(description="Covered pictures, of methods that draw them.")] = None,
        seed: Annotated[int, Form(ge=0, le=1 << 32)] = 0,
    ) -> Explanation:
        """Show what the model looks at: parts of the picture are covered, and the file is asked again."""
        asked = Asked(method, explained_class, cells, baseline, evaluations, seed)
        checked(asked, service.model)
        if service.explaining:
            raise HTTPException(429, "a heat map is being made; they are made one at a time", {"retry-after": "1"})
        found = await service.explain(await file.read(), asked)
        return Explanation(
            method=found.method,
            explained_class=found.of_class,
            map=found.values.tolist(),
            prediction=found.decision.prediction,
            confidence=found.decision.confidence,
            probabilities=found.decision.probabilities,
            picture_png=base64.b64encode(found.seen).decode(),
            heat_map_png=base64.b64encode(found.heat).decode(),
            inferences=found.inferences,
            seconds=round(found.seconds, 4),
            model_version=service.model.version,
        )


def _add_errors(app: FastAPI) -> None:
    """Answer each kind of error with its status and one line."""
    answers: Sequence[tuple[type[Exception], int, dict[str, str]]] = (
        (Busy, 503, {"retry-after": "1"}),
        (NoImage, 415, {}),
        (TooManyPixels, 413, {}),
        (InputError, 422, {}),  # DataError is one: a damaged picture
        (ExportError, 500, {}),
        (EdgebenchError, 500, {}),
    )
    for kind, status, headers in answers:

        def answer(_: Request, error: Exception, status: int = status, headers: dict[str, str] = headers) -> Response:
            return JSONResponse({"detail": written(error)}, status, headers)

        app.add_exception_handler(kind, answer)
