//! A report's pictures, as SVG.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::*;

use super::series::Report;

/// Pixels.
const SIZE: (u32, u32) = (760, 420);

/// What a picture shows.
enum Shape {
    /// For each row, the share of its samples that are at most x; from zero to this value.
    Distribution { rows: &'static [(&'static str, &'static str)], most: f64 },
    /// For each name, the medians of the rows of one section that are called `NUMBER BETWEEN: NAME`, over their numbers.
    Over { section: &'static str, between: &'static str, names: &'static [&'static str] },
}

struct Picture {
    file: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    shape: Shape,
}

const PICTURES: &[Picture] = &[
    Picture {
        file: "start.svg",
        title: "How long a start takes",
        x: "milliseconds",
        y: "share of the starts",
        shape: Shape::Distribution {
            rows: &[
                ("Commands", "`turf start` and the first answer"),
                ("First connection to a pool at zero", "connect to answer"),
                ("Plain programs", "`turf run`: wall"),
                ("Plain programs", "`crun run`: wall"),
                ("Plain programs", "`runc run`: wall"),
                ("Cold start", "bun: start to first response"),
            ],
            most: 30.0,
        },
    },
    Picture {
        file: "workers.svg",
        title: "Memory over the number of workers",
        x: "workers, each after one request",
        y: "MB",
        shape: Shape::Over {
            section: "Memory over the number of workers",
            between: "workers",
            names: &["everything", "private memory", "page tables"],
        },
    },
    Picture {
        file: "seed-size.svg",
        title: "Cost of a start over the size of the seed",
        x: "MB of JavaScript's heap in the seed",
        y: "microseconds",
        shape: Shape::Over {
            section: "Cost over the size of the seed",
            between: "MB",
            names: &["fork call alone", "fork call to first JavaScript result"],
        },
    },
];

/// One line of a picture.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Writes the pictures that the report has rows for into a directory; their titles and file names.
pub fn write(report: &Report, directory: &Path) -> Result<Vec<(&'static str, &'static str)>> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let mut written = Vec::new();
    for picture in PICTURES {
        let lines = lines(picture, report);
        if !lines.is_empty() {
            let path = directory.join(picture.file);
            draw(picture, &lines, &path)
                .map_err(|error| anyhow::anyhow!("draw {}: {error}", path.display()))?;
            written.push((picture.title, picture.file));
        }
    }
    Ok(written)
}

fn lines(picture: &Picture, report: &Report) -> Vec<Line> {
    match &picture.shape {
        Shape::Distribution { rows, .. } => {
            let line = |(section, row): &(&str, &str)| {
                let sorted = report.sorted(section, row)?;
                let share = |index: usize| (index + 1) as f64 / sorted.len() as f64;
                let points = sorted.iter().enumerate().map(|(index, value)| (*value, share(index))).collect();
                Some(Line { name: row.replace('`', ""), points })
            };
            rows.iter().filter_map(line).collect()
        }
        Shape::Over { section, between, names } => {
            let line = |name: &&str| {
                let at = |row: &str| {
                    let (number, rest) = row.split_once(' ')?;
                    let place = number.replace(',', "").parse().ok()?;
                    (rest == format!("{between}: {name}")).then_some(())?;
                    Some((place, report.figure(section, row, 50.0)?.0))
                };
                let points: Vec<(f64, f64)> = report.rows(section).filter_map(at).collect();
                (!points.is_empty()).then(|| Line { name: (*name).to_owned(), points })
            };
            names.iter().filter_map(line).collect()
        }
    }
}

fn draw(picture: &Picture, lines: &[Line], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (mut right, mut top) =
        points().fold((0.0, 0.0), |most: (f64, f64), (x, y)| (most.0.max(*x), most.1.max(*y)));
    let mut legend = SeriesLabelPosition::UpperLeft;
    if let Shape::Distribution { most, .. } = picture.shape {
        (right, top, legend) = (right.min(most), 1.0, SeriesLabelPosition::LowerRight);
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(picture.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..right, 0.0..top * 1.02)?;
    chart.configure_mesh().light_line_style(WHITE).x_desc(picture.x).y_desc(picture.y).draw()?;
    for (number, line) in lines.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        let within = line.points.iter().copied().filter(|(x, _)| *x <= right);
        chart
            .draw_series(LineSeries::new(within, color.stroke_width(2)))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(legend)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_needs_its_rows() {
        let directory = tempfile::tempdir().unwrap();
        let mut report = Report::new("a machine".into());
        assert!(write(&report, directory.path()).unwrap().is_empty());
        for (count, size) in [(1, 30.0), (1_000, 500.0)] {
            let row = format!("{count} workers: private memory");
            report.add("Memory over the number of workers", &row, "MB", size);
        }
        let written = write(&report, directory.path()).unwrap();
        assert_eq!(written, [("Memory over the number of workers", "workers.svg")]);
        let drawn = fs::read_to_string(directory.path().join("workers.svg")).unwrap();
        assert!(drawn.starts_with("<svg") && drawn.contains("private memory"), "{drawn}");
        assert!(drawn.contains("polyline"), "no line is drawn: {drawn}");
    }

    #[test]
    fn a_distribution_rises_to_one() {
        let mut report = Report::new("a machine".into());
        for time in [3.0, 1.0, 2.0, 4.0] {
            report.add("Commands", "`turf start` and the first answer", "ms", time);
        }
        let lines = lines(&PICTURES[0], &report);
        assert_eq!(lines[0].points, [(1.0, 0.25), (2.0, 0.5), (3.0, 0.75), (4.0, 1.0)]);
    }
}
