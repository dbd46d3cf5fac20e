"""The template of the report, which `page` fills in: one page that needs no other file, no network and no scripts.

It is Python text and not a file of its own, so that the digest of the code behind a report (`files.source`) covers it.
"""

import jinja2

_STYLE = """\
:root { --ink: #1b1b1b; --soft: #595959; --line: #d5d5d5 }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 80rem; padding: 1.5rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", "Liberation Sans", Helvetica, Arial, sans-serif; overflow-wrap: break-word }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.2rem 0 .2rem } h3 + p { margin-top: 0 }
p, li, figcaption { max-width: 48rem }
a { color: #00558c }
.run { max-width: none; margin: 0 0 .4rem }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem }
figure { margin: 1.5rem 0 2.5rem }
figure img { display: block; max-width: 100%; height: auto }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .6rem }
figcaption p { margin: 0 0 .4rem }
.wide { overflow-x: auto; border: 1px solid var(--line) }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th { white-space: normal; vertical-align: bottom }
:is(th, td):nth-child(-n+2) { text-align: left }
.warning { border-left: .25rem solid #d55e00; padding-left: .75rem }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt } nav { display: none }
  figure, tr { break-inside: avoid } .wide { overflow: visible; border: 0 }
  table { font-size: 6.5pt } th, td { white-space: normal }
}
"""
_PAGE = """\
{% macro table(shown, label) %}
<div class="wide" role="region" aria-label="{{ label }}" tabindex="0">
<table>
<thead><tr>{% for name in shown.names %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in shown.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ntksim: {{ title }}</title>
<style>
{{ style | safe }}
</style>
</head>
<body>
<header>
<h1>Neural tangent kernels against width: {{ title }}</h1>
{% for name, text in opening %}
<p class="run"><strong>{{ name }}:</strong> {{ text }}</p>
{% endfor %}
{% for remark in remarks %}
<p class="warning">Warning: {{ remark }}</p>
{% endfor %}
</header>
<nav aria-label="Contents">
<ul>
<li><a href="#findings">Findings</a></li>
<li><a href="#figures">Figures</a></li>
{% for figure in figures %}
<li><a href="#{{ figure.name }}">{{ figure.title }}</a></li>
{% endfor %}
<li><a href="#laws">Laws</a></li>
{% if verdicts %}
<li><a href="#verdicts">Verdicts</a></li>
{% endif %}
<li><a href="#provenance">Provenance</a></li>
</ul>
</nav>
<main>
<section id="findings">
<h2>Findings</h2>
{% for network, sentences in found.items() %}
<h3>{{ network }}</h3>
<p>{{ sentences | join(" ") }}</p>
{% endfor %}
{% for text in verdict_lines %}
{% if loop.first %}
<h3>Lazy or rich</h3>
<p>{{ text }}</p>
<ul>
{% else %}
<li>{{ text }}</li>
{% endif %}
{% if loop.last %}
</ul>
{% endif %}
{% endfor %}
{% if left_out %}
<h3>What is left out</h3>
{% for text in left_out %}
<p>{{ text }}</p>
{% endfor %}
{% endif %}
</section>
<section id="figures">
<h2>Figures</h2>
{% for figure in figures %}
<figure id="{{ figure.name }}">
<img src="data:image/svg+xml;base64,{{ figure.content }}" alt="{{ figure.alt }}">
<figcaption>
{{ figure.caption | safe }}
<p>Files: {% for file in figure.files %}<a href="{{ file }}">{{ file }}</a>{{ ", " if not loop.last }}{% endfor %}</p>
</figcaption>
</figure>
{% else %}
<p>No figures have been drawn in this folder.</p>
{% endfor %}
</section>
<section id="laws">
<h2>Laws</h2>
<p>Fits of c m^exponent to root mean squares over seeds, where m is the width. z is the difference from theory in standard
errors. The standard errors contain the scatter between seeds only, not the deviations from the power law at finite widths.</p>
{% if along_others %}
<p>Laws along another variable (column along) have it in place of m: the number of training points n at one width, where losses
are means over seeds, or depth over width of all networks that are equal but for their depth.</p>
{% endif %}
{{ table(laws, "Scaling laws") }}
{% if averages %}
<p>The same of averages over all seeds of the data. Their standard errors and intervals contain how data sets differ, too.</p>
{{ table(averages, "Scaling laws of averages over data sets") }}
{% endif %}
{% for text in flips %}
<p>{{ text }}</p>
{% endfor %}
</section>
{% if verdicts %}
<section id="verdicts">
<h2>Verdicts</h2>
<p>{{ heading }}. Test losses and accuracies are means over seeds. All other measurements are medians.</p>
{{ table(verdicts, "Verdicts") }}
</section>
{% endif %}
<section id="provenance">
<h2>Provenance</h2>
<p>{{ source }}</p>
<p>The networks as configured:</p>
{{ table(networks, "Networks") }}
<p>The tables are Parquet files in <a href="tables">tables</a>; <code>ntksim.read_table(results, name)</code> reads one. The
folder <a href="record">record</a> holds what is needed to repeat the study.</p>
</section>
</main>
</body>
</html>
"""


def template() -> jinja2.Template:
    """The template. It escapes values, and a missing name is an error."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.globals["style"] = _STYLE
    return environment.from_string(_PAGE)
