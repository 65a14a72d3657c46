"""What Prometheus reads of a process."""

from collections.abc import Mapping
from dataclasses import dataclass

import httpx2
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Scrape:
    """Every sample by name and labels; those of several processes, added up."""

    samples: Mapping[tuple[str, Labels], float]
    types: Mapping[str, str]
    text: str

    @classmethod
    def of(cls, *texts: str) -> "Scrape":
        samples: dict[tuple[str, Labels], float] = {}
        types: dict[str, str] = {}
        for text in texts:
            for family in text_string_to_metric_families(text):
                types[family.name] = family.type
                for sample in family.samples:
                    key = sample.name, frozenset(sample.labels.items())
                    samples[key] = samples.get(key, 0.0) + sample.value
        return cls(samples, types, "".join(texts))

    def __call__(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of a name with these labels, whatever others they have; `name_` for `name`."""
        wanted = {(label.removesuffix("_"), value) for label, value in labels.items()}
        return sum(value for (found, has), value in self.samples.items() if found == name and wanted <= has)

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return what is not 0, by some labels."""
        found: dict[tuple[str, ...], float] = {}
        for (sample, has), value in self.samples.items():
            if sample == name and value:
                key = tuple(dict(has)[label] for label in labels)
                found[key] = found.get(key, 0.0) + value
        return found

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}

    def labels(self, name: str) -> set[str]:
        return {label for found, has in self.samples if found == name for label, _ in has}


async def scrape(*urls: str) -> Scrape:
    """Scrape some processes."""
    async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=10) as http:
        texts = []
        for url in urls:
            response = await http.get(f"{url.rstrip('/')}/metrics")
            assert response.status_code == 200, response.text
            assert response.headers["content-type"].startswith("text/plain; version=")
            texts.append(response.text)
    return Scrape.of(*texts)
