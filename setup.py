"Reads settings.ini, so that every fact about the package stands there once."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(here / 'settings.ini', encoding='utf-8')
facts = config['DEFAULT']
name = facts['lib_name']

setup(
    name=name,
    version=facts['version'],
    description=facts['description'],
    keywords=facts['keywords'],
    author=facts['author'],
    author_email=facts['author_email'],
    url=facts['git_url'],
    license='Apache-2.0',
    long_description=(here / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    packages=find_packages(include=['simclr_nb', 'simclr_nb.*']),
    package_data={'simclr_nb': ['sample-*.png', 'map.html']},
    include_package_data=True,
    python_requires=f">={facts['min_python']}",
    install_requires=facts['requirements'].split(),
    extras_require={'dev': facts['dev_requirements'].split(),
                    'bench': facts['bench_requirements'].split()},
    entry_points={'console_scripts': facts['console_scripts'].split(),
                  'nbdev': [f'{name}={name}._modidx:d']},
    zip_safe=False)
