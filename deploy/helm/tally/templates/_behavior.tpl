{{/* Scale up at once, down slowly: a drain copies the outputs that are still needed. */}}
{{- define "tally.behavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  selectPolicy: Max
  policies:
    - {type: Percent, value: 400, periodSeconds: 15}
    - {type: Pods, value: 10, periodSeconds: 15}
scaleDown:
  stabilizationWindowSeconds: {{ .Values.autoscaling.scaleDownStabilizationSeconds }}
  selectPolicy: Max
  policies:
    - {type: Percent, value: {{ .Values.autoscaling.scaleDownPercent }}, periodSeconds: 60}
{{- end -}}
