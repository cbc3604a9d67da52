{{/* The settings files. Each key is a long option of the program. */}}
{{- define "tally.coordinatorSettings" -}}
# All addresses, IPv6 and IPv4.
listen = ":{{ .Values.coordinator.service.port }}"
http-listen = ":{{ .Values.coordinator.httpPort }}"
state-dir = {{ include "tally.stateDir" . | quote }}
max-jobs = {{ .Values.coordinator.maxJobs }}
history = {{ .Values.coordinator.history }}
no-workers-timeout = "{{ int .Values.coordinator.noWorkersTimeoutSeconds }}s"
{{- include "tally.tlsSettings" (list . "coordinator") }}
{{- include "tally.traceSettings" . }}
{{ include "tally.consulSettings" . }}
{{- end -}}

{{- define "tally.workerSettings" -}}
# All addresses, IPv6 and IPv4.
listen = ":{{ .Values.worker.port }}"
http-listen = ":{{ .Values.worker.httpPort }}"
slots = {{ .Values.worker.slots }}
memory-limit = "{{ div (mul (int .Values.worker.memoryMiB) 3) 4 }}MiB"
spill-dir = "/spill"
spill-limit = "{{ mul (int .Values.worker.spillGiB) 921 }}MiB"
drain-timeout = "{{ int .Values.worker.drainTimeoutSeconds }}s"
{{- include "tally.tlsSettings" (list . "worker") }}
{{- include "tally.traceSettings" . }}
{{- if not .Values.consul.url }}
coordinator = [{{ include "tally.coordinator" . | quote }}]
{{- end }}
{{ include "tally.consulSettings" . }}
{{- end -}}

{{- define "tally.traceSettings" -}}
{{- with .Values.traces.endpoint }}
otlp-endpoint = {{ . | quote }}
{{- end }}
{{- end -}}
