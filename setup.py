"""Package metadata. Ranges are open for users; `requirements.lock` holds the exact versions that the scripts install."""

from setuptools import find_packages, setup

REQUIRED = [
    "torch>=2.6",
    "torchvision>=0.21",
    "timm>=1.0.15",
    "transformers>=5",
    "tokenizers>=0.22",
    "accelerate>=1.10",
    "safetensors>=0.5",
    "numpy>=1.26",
    "pillow>=11",
    "opencv-python-headless>=4.10",
    "ruamel.yaml>=0.18",
    "pydantic>=2.10",
    "fsspec>=2024.6",
    "braceexpand>=0.1.7",
    "rich>=13.9",
    "psutil>=5.9",
    "tensorboard>=2.18",
    "matplotlib>=3.9",
    "jinja2>=3.1",
]

EXTRAS = {
    "video": ["av>=14"],
    "video-decoders": ["torchcodec>=0.12", "decord>=0.6"],  # others that dataset/video_reader.py can take
    "phrases": ["spacy>=3.7"],
    "caption-metrics": ["pycocoevalcap>=1.2", "pycocotools>=2.0.8"],
    "deepspeed": ["deepspeed>=0.18"],
    "wandb": ["wandb>=0.19"],
    "glue": ["datasets>=3"],
    "image-sets": ["h5py>=3.10", "scipy>=1.11"],  # what torchvision needs for PCAM, Flowers-102 and Stanford Cars
    "remote": ["s3fs>=2024.6", "gcsfs>=2024.6", "aiohttp>=3.10"],
    "dev": [
        "aiohttp>=3.10",
        "deepspeed>=0.18",
        "packaging>=24",
        "pyright[nodejs]>=1.1.400",
        "pytest>=8.3",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "ruff>=0.9",
    ],
}

PACKAGES = ("common", "models", "dataset", "engine", "evaluation", "parity")

setup(
    name="multigrain",
    version="0.1.0",
    description="Multi-grained vision-language pre-training: images, regions and text in one model, a paper as a recipe",
    license="BSD-3-Clause",
    python_requires=">=3.10",
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    packages=find_packages(include=[pattern for name in PACKAGES for pattern in (name, f"{name}.*")]),
    package_data={"": ["*.j2"]},
    py_modules=["run", "Pretrain", "Retrieval", "VQA", "NLVR", "Grounding", "Captioning", "Classification", "ZeroShot"],
)
