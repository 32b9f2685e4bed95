"""The report: one HTML file that shows what a run of the graph made, with nothing to download.

collect    artifacts/ -> Material, all that the page shows, as plain values
facts      RunFacts, what only a run of the flow knows
sections   Material -> pictures, tables and curves of each model family
tables     metrics with their direction and meaning, by class, against production
words      what families, stages, figures and metrics are called
page       all of it -> HTML, through page.html.jinja and style.css
charts     training curves as SVG
graph      the stages as a drawn graph
"""
