"""Reports: figures, tables and one self-contained HTML file. matplotlib and Jinja2 load when a report is written."""

from scaling_sim.report.data import ReportData as ReportData
from scaling_sim.report.data import environment as environment
from scaling_sim.report.html import render_report as render_report
from scaling_sim.report.html import write_report as write_report
