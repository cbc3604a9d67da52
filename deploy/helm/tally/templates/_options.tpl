{{/* The inputs of the daily job: where each is, by the name of its value, as JSON. */}}
{{- define "tally.scheduleInputs" -}}
{{- $inputs := dict -}}
{{- if .Values.schedule.tables -}}
{{- range $name, $root := .Values.schedule.tables }}{{ $_ := set $inputs (printf "tables.%s" $name) $root }}{{ end -}}
{{- else -}}
{{- $_ := set $inputs "addons" .Values.schedule.addons -}}
{{- $_ := set $inputs "mainSummary" .Values.schedule.mainSummary -}}
{{- end -}}
{{- toJson $inputs -}}
{{- end -}}

{{/* The same with the output. */}}
{{- define "tally.schedulePlaces" -}}
{{- $places := include "tally.scheduleInputs" . | fromJson -}}
{{- $_ := set $places "output" .Values.schedule.output -}}
{{- toJson $places -}}
{{- end -}}

{{/* The names of the options of the daily job's dataset, as JSON. */}}
{{- define "tally.optionNames" -}}
{{- concat (keys .Values.schedule.datasetOptions) (keys .Values.schedule.datasetOptionsConfigMap.keys) | sortAlpha | toJson -}}
{{- end -}}

{{- define "tally.optionMounts" -}}
{{- if include "tally.optionNames" . | fromJsonArray }}
- {name: options, mountPath: /etc/tally/options, readOnly: true}
{{- end }}
{{- end -}}

{{- define "tally.optionVolumes" -}}
{{- $own := .Values.schedule -}}
{{- if include "tally.optionNames" . | fromJsonArray }}
- name: options
  projected:
    sources:
      {{- if $own.datasetOptions }}
      - configMap:
          name: "{{ include "tally.fullname" . }}-daily-options"
      {{- end }}
      {{- if $own.datasetOptionsConfigMap.keys }}
      - configMap:
          name: {{ $own.datasetOptionsConfigMap.name | quote }}
          items:
            {{- range $name, $key := $own.datasetOptionsConfigMap.keys }}
            - {key: {{ $key | quote }}, path: {{ $name | quote }}}
            {{- end }}
      {{- end }}
{{- end }}
{{- end -}}

{{/* The dataset of the daily job, its tables and options. */}}
{{- define "tally.checkDataset" -}}
{{- $own := .Values.schedule -}}
{{- if $own.enabled -}}
{{- if and $own.tables (or $own.addons $own.mainSummary) -}}
{{- fail "schedule.tables is set, and so is schedule.addons or schedule.mainSummary: give each table once, in schedule.tables" -}}
{{- end -}}
{{- if and $own.dataset (ne $own.dataset "addon_aggregates") (not $own.tables) -}}
{{- fail (printf "schedule.dataset is %s, and schedule.tables is empty: give the roots of its tables by name" $own.dataset) -}}
{{- end -}}
{{- end -}}
{{- if and $own.datasetOptionsConfigMap.keys (not $own.datasetOptionsConfigMap.name) -}}
{{- fail "schedule.datasetOptionsConfigMap.keys is set, and schedule.datasetOptionsConfigMap.name is empty: name the ConfigMap" -}}
{{- end -}}
{{- if and $own.datasetOptionsConfigMap.name (not $own.datasetOptionsConfigMap.keys) -}}
{{- fail "schedule.datasetOptionsConfigMap.name is set, and schedule.datasetOptionsConfigMap.keys is empty: write the key of each option" -}}
{{- end -}}
{{- range $name, $key := $own.datasetOptionsConfigMap.keys -}}
{{- if hasKey $own.datasetOptions $name -}}
{{- fail (printf "schedule.datasetOptions and schedule.datasetOptionsConfigMap.keys both have %s: give the option once" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
